"""Every kind in the place of one layer."""

import json

import pytest

from convlite import kinds
from convlite.analyse import Choice, compare
from convlite.analyse.latency import Timing
from convlite.cost import Cost
from convlite.errors import InputError


def test_the_study_notes_promise():
    found = compare(728, 728, 3, 19, rounds=0)
    promised = {choice.kind: choice.promised for choice in found.choices}
    assert promised["normal"] == 1
    assert promised["separable"] == pytest.approx(1 / (1 / 728 + 1 / 9))
    assert promised["grouped(4)"] == 4
    assert promised["pointwise"] == 9
    assert promised["depthwise"] == 728
    assert found.machine is None and found.choices[0].ms == {}
    assert list(found.left_out) == ["stacked"] and "5 or more" in found.left_out["stacked"]


@pytest.mark.parametrize(
    ("sizes", "left_out"),
    [
        ({"c": 3, "m": 8}, {"grouped(4)", "depthwise(2)", "stacked", "shuffled(4)"}),
        ({"c": 4, "m": 8, "k": 5}, set()),
        ({"c": 8, "m": 8, "k": 1, "size": (5, 9)}, {"pointwise", "stacked"}),
        ({"c": 8, "m": 8, "k": (1, 7), "stride": 2, "groups": 2}, set()),
    ],
)
def test_each_kind_stands_there_or_says_why_not(sizes, left_out):
    found = compare(**{"size": 8, "k": 3} | sizes, rounds=0)
    h, w = sizes["size"] if isinstance(sizes.get("size"), tuple) else (8, 8)
    dense = kinds.conv(c=sizes["c"], m=sizes["m"], k=sizes.get("k", 3), stride=sizes.get("stride", 1), h=h, w=w)
    assert found.layer == dense
    assert left_out <= set(found.left_out)
    assert all(reason for reason in found.left_out.values())
    for choice in found.choices:
        kind = kinds.parse(choice.kind)
        assert choice.cost == kind.cost(dense)
        assert choice.formula == kind.formula
    shown = [choice.kind for choice in found.choices] + list(found.left_out)
    assert len(shown) == len(set(shown)) >= 10


def test_both_memory_layouts_are_measured():
    found = compare(4, 4, 3, 6, rounds=2, kinds=[kinds.Separable(), kinds.Normal()], threads=1)
    assert [choice.kind for choice in found.choices] == ["normal", "separable"]
    for choice in found.choices:
        assert set(choice.ms) == set(choice.speedup) == {"contiguous", "channels_last"}
        assert all(one.runs == 2 for one in choice.ms.values())
    assert set(found.choices[0].speedup.values()) == {1.0}
    assert found.machine.threads == 1


def test_json():
    found = json.loads(json.dumps(compare(4, 4, 3, 6, rounds=1, threads=1).to_dict()))
    assert found["layouts"] == ["contiguous", "channels_last"]
    assert found["layer"]["c"] == 4
    first = found["kinds"][0]
    assert {"kind", "formula", "params", "macs", "promised", "ms", "note"} <= set(first)
    assert set(first["ms"]["contiguous"]) == {"median", "low", "high", "runs", "speedup"}
    assert found["left_out"][0]["why_not"]


def test_fewer_macs_that_are_not_faster_are_flagged():
    timing = Timing(1, 1, 1, 1, 1)
    slow = Choice("separable", "", Cost(), 8.0, {"contiguous": timing}, {"contiguous": 0.9, "channels_last": 1.1})
    assert slow.note == "fewer MACs, not faster (contiguous)"
    assert Choice("separable", "", Cost(), 8.0, {}, {"contiguous": 1.2}).note == ""
    assert Choice("normal", "", Cost(), 1.0, {}, {"contiguous": 0.9}).note == ""


def test_bad_input():
    with pytest.raises(InputError):
        compare(0, 4, rounds=0)
