"""What a failed read is taken for: only what is proven absent or broken is a hole."""

import pytest

from tessera_cli.errors import CredentialsError, SourceRefusedError, SourceUnavailableError
from tessera_cli.imagery.reader import _why

HREF = "https://example.test/S2B_MSIL2A_20230404T105629_T31UFT_20230410T140212/B04.tif"


@pytest.mark.parametrize("status", [404, 410])
def test_what_the_server_does_not_have_is_absent(status):
    assert _why(HREF, Exception(f"HTTP response code: {status}")) == "is absent"
    assert _why(HREF, Exception(f"{HREF}: HTTP error code : {status}")) == "is absent"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (f"HTTP response code on {HREF}: 403", SourceUnavailableError),  # dates of an href are no status
        (f"'/vsicurl/{HREF}' not recognized as a supported file format", SourceUnavailableError),
        ("HTTP response code: 403", CredentialsError),
        ("HTTP response code: 401", CredentialsError),
        ("HTTP response code: 416", SourceRefusedError),
        ("HTTP response code: 429", SourceUnavailableError),
        ("HTTP response code: 503", SourceUnavailableError),
        ("ZIPDecode:Decoding error at scanline 0", SourceUnavailableError),  # a refusal in disguise, perhaps
    ],
)
def test_refused_and_unknown_are_no_holes(text, error):
    with pytest.raises(error):
        _why(HREF, Exception(text))


def test_local_files(tmp_path):
    path = tmp_path / "x.tif"
    assert _why(str(path), Exception("HTTP response code: 403")) == "is absent"
    path.write_bytes(b"1234")
    assert _why(str(path), Exception("")) == "is broken (4 bytes that do not decode)"
