"""Kinds go to text and JSON and come back the same; what is no kind is said in one sentence."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes import Options, convs, every_kind, orders, ranks, small
from torch import nn

from convlite import kinds
from convlite.errors import ConvliteError, InputError

written = st.builds(Options, small, ranks, orders, st.sampled_from([None, "ReLU", "elu"]))


@settings(max_examples=50, deadline=None)
@given(convs(), written)
def test_text_and_json_round_trips(dense, choice):
    for kind in every_kind(dense, choice):
        assert kinds.from_dict(json.loads(json.dumps(kind.to_dict()))) == kind
        assert kinds.parse(repr(kind)) == kinds.parse(str(kind)) == kind
        assert kinds.parse(f"  {kind.name.upper()}{repr(kind)[len(kind.name) :]} ") == kind
        assert hash(kinds.parse(repr(kind))) == hash(kind)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("separable", kinds.Separable()),
        ("Separable()", kinds.Separable()),
        ("grouped(4)", kinds.Grouped(4)),
        ("GROUPED(groups=4)", kinds.Grouped(4)),
        ("separable('pointwise_first', between='ReLU')", kinds.Separable("pointwise_first", "ReLU")),
        ("bottleneck(8, rank_out=6)", kinds.Bottleneck(8, 6)),
    ],
)
def test_spellings(text, kind):
    assert kinds.parse(text) == kind


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("separabel", "did you mean separable"),
        ("convolution9", "known are asymmetric"),
        ("grouped", "Grouped takes groups"),
        ("grouped(4, 5)", "Grouped takes groups"),
        ("grouped(4, groups=4)", "Grouped takes groups"),
        ("grouped(group=4)", "Grouped takes groups"),
        ("grouped(**{'groups': 4})", "Grouped takes groups"),
        ("grouped(0)", "at least 1, given 0"),
        ("grouped(-2)", "at least 1, given -2"),
        ("grouped(None)", "groups=None"),
        ("separable(multiplier=None)", "multiplier=None"),
        ("grouped('4')", "groups='4'"),
        ("grouped(2.0)", "groups=2.0"),
        ("grouped(True)", "groups=True"),
        ("normal(1)", "Normal takes nothing"),
        ("separable(order='any')", "'depthwise_first' or 'pointwise_first'"),
        ("separable(order=None)", "order=None"),
        ("separable(between='RELLU')", "did you mean"),
        ("separable(between='MultiheadAttention')", "without arguments"),
        ("grouped(4", "spelled like"),
        ("grouped(__import__('os'))", "spelled like"),
        ("kinds.Grouped(4)", "spelled like"),
        ("grouped(*[4])", "spelled like"),
        ("separable; normal", "spelled like"),
        ("", "spelled like"),
        ("4", "spelled like"),
        ("a\0b", "spelled like"),
        ("(" * 5000, "spelled like"),
    ],
)
def test_what_is_no_kind_is_said_in_one_sentence(text, words):
    with pytest.raises(InputError) as error:
        kinds.parse(text)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30) | st.from_regex(r"(grouped|separable)\([a-z0-9=,' -]{0,12}\)", fullmatch=True))
def test_any_text_is_a_kind_or_an_error_of_ours(text):
    try:
        assert isinstance(kinds.parse(text), kinds.Kind)
    except ConvliteError as error:
        assert isinstance(error, InputError)


@pytest.mark.parametrize(
    "values",
    [None, "grouped", {}, {"groups": 4}, {"kind": "grouped"}, {"kind": 3}, {"kind": "normal", "a": 1}],
)
def test_what_is_no_kind_in_json(values):
    with pytest.raises(InputError):
        kinds.from_dict(values)


@pytest.mark.parametrize("between", [nn.ReLU, nn.ReLU(), lambda: nn.ReLU()])
def test_code_between_can_t_be_written(between):
    with pytest.raises(InputError, match="name of an activation"):
        kinds.Separable(between=between).to_dict()


def test_short_spellings():
    assert str(kinds.Separable()) == "separable"
    assert str(kinds.Grouped(4)) == "grouped(4)"
    assert str(kinds.Bottleneck(8, 6)) == "bottleneck(8, 6)"
    assert str(kinds.Bottleneck(8, 8, slices=8)) == "bottleneck(8, 8, slices=8)"
    assert str(kinds.Separable(multiplier=2, between="ReLU")) == "separable(between='ReLU', multiplier=2)"


def test_only_what_has_nothing_between_is_linear():
    assert kinds.Separable().linear
    assert kinds.Normal().linear
    assert not kinds.Separable(between="ReLU").linear
