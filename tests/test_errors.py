"""How settings differ, in words."""

from tessera_cli.errors import differences


def test_differences_are_named_key_by_key():
    there = {"model": "a", "layers": {"s2": {"heads": 4, "width": 8}, "kind": "x"}, "sum": "0" * 64, "only": 1}
    here = {"model": "b", "layers": {"s2": {"heads": 2, "width": 8}, "kind": "x"}, "sum": "1" * 64, "more": {"x": 1}}
    assert differences(there, here) == [
        "model is 'a' there and 'b' here",
        "layers.s2.heads is 4 there and 2 here",
        "sum is '000000000000000...' there and '111111111111111...' here",
        "only is 1 there and not set here",
        "more is not set there and set here",
    ]
    assert differences(there, there) == []
