"""JSON of others: what Python's parser takes and nobody else does becomes nothing; what is no JSON says why."""

import json
import math
import tracemalloc

import pytest

from tessera_cli.json_text import DEEPEST, parse_json


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, "x", null, true]}', {"a": [1, 2.5, "x", None, True]}),
        ('[NaN, Infinity, -Infinity, 1e999, -1e999, {"a": NaN}]', [None, None, None, None, None, {"a": None}]),
        ("[" + "9" * 5000 + ", -1, 123456789012345678901234567890]", [None, -1, 123456789012345678901234567890]),
        (r'["\ud800", "a\udfffb", "\ud83d\ude00", "\\ud800"]', ["\ufffd", "a\ufffdb", "\U0001f600", "\\ud800"]),
        (r'{"\ud800": {"\udc00": ["\ud800"]}}', {"\ufffd": {"\ufffd": ["\ufffd"]}}),
        ('{"a": 1, "a": 2}', {"a": 2}),
        (b'\xef\xbb\xbf{"a": "\xc3\xa4"}', {"a": "\xe4"}),
        ('{"a": "\xe4"}'.encode("utf-16"), {"a": "\xe4"}),
        ("[" * DEEPEST + "]" * DEEPEST, None),
    ],
    ids=["plain", "not finite", "long", "half letters", "keys", "twice", "utf-8", "utf-16", "deep"],
)
def test_values(text, value):
    found = parse_json(text)
    if value is not None:
        assert found == value
    json.dumps(found, allow_nan=False, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ("<html>", "Expecting value"),
        (b'{"a": "\xff"}', "can't decode byte 0xff"),
        (b'"\xed\xa0\x80"', "can't decode byte 0xed"),
        ("[" * (DEEPEST + 2) + "]" * (DEEPEST + 2), "nested too deeply"),
        ('{"a":' * 300 + "1" + "}" * 300, "nested too deeply"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"a":[' * 100_000, "nested too deeply"),
    ],
    ids=["empty", "page", "bytes", "half a letter", "deep", "objects", "very deep", "without end"],
)
def test_what_is_no_json(text, why):
    with pytest.raises(ValueError, match=why):
        parse_json(text)


def test_values_that_take_too_much_memory_are_refused_before_they_are_made():
    for text in ("[" + "[]," * 8_000_000 + "0]", "[" + '{"":0},' * 3_000_000 + "0]"):
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=r"its values would take .* MB of memory, and at most 750"):
                parse_json(text)
            assert tracemalloc.get_traced_memory()[1] < 10_000_000
        finally:
            tracemalloc.stop()
    parse_json("[" + "[0.5,0.25]," * 100_000 + "0]")


def test_numbers_keep_their_values():
    numbers = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 2**63, -(10**250), 180.0000001]
    found = parse_json(json.dumps(numbers))
    assert found == numbers
    assert math.copysign(1, found[4]) == -1
    assert [type(number) for number in found] == [type(number) for number in numbers]
