"""Former place of `tests.helpers.checkpoints`, kept for scripts outside this repository that import it from here."""

from tests.helpers.checkpoints import *  # noqa: F403
