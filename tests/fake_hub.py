"""Former place of `tests.helpers.fake_hub`, kept for scripts outside this repository that import it from here."""

from tests.helpers.fake_hub import *  # noqa: F403
