"""What can be given, and what is said where it can't be."""

import numpy as np
import pytest
import torch
from torch import nn
from toys import TwoInputs

from convlite.analyse import Spec, analyse, filled, read_spec
from convlite.errors import InputError


def small():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))


@pytest.mark.parametrize(
    "given",
    [
        (3, 8, 8),
        [3, 8, 8],
        torch.Size((3, 8, 8)),
        tuple(np.array([3, 8, 8])),
        torch.rand(1, 3, 8, 8),
        (torch.rand(1, 3, 8, 8),),
        ((3, 8, 8),),
    ],
    ids=lambda given: type(given).__name__,
)
def test_one_input_in_any_form(given):
    table = analyse(small(), given)
    assert table.macs == 108 * 36 + 144 * 5
    assert table.input == ({"name": "0", "shape": [1, 3, 8, 8], "dtype": "float32"},)


def test_named_inputs_are_recorded_by_name():
    table = analyse(TwoInputs(), {"image": (3, 5, 5), "vector": (6,)})
    assert [one["name"] for one in table.input] == ["image", "vector"]


def test_other_values_are_passed_on():
    class Scaled(nn.Module):
        def forward(self, xs, scale, *, double=False, mask=None):
            return xs[0] @ xs[1] * scale * (2 if double else 1)

    assert analyse(Scaled(), ([(2, 3), torch.rand(1, 3, 4)], 2.0)).macs == 24
    assert analyse(Scaled(), {"xs": [(2, 3), (3, 4)], "scale": 1, "double": True, "mask": None}).macs == 24


class Nested(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), inner)

    def forward(self, x):
        return self.body(self.stem(x))


class Raises(nn.Module):
    def forward(self, x):
        raise KeyError("nothing there")


class LooksAtData(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, x):
        return self.how(x)


def test_the_models_own_exception_is_the_cause():
    with pytest.raises(
        InputError, match=r"Raises 'body\.1' failed on an input of 1×3×8×8 \(KeyError: 'nothing"
    ) as e:
        analyse(Nested(Raises()), (3, 8, 8))
    assert isinstance(e.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("net", "given", "message"),
    [
        (small(), (1, 8, 8), r"Conv2d '0' failed .* 1×1×8×8 .* It takes \(batch, 3, height, width\)\."),
        (small(), (3, 9, 9), r"Linear '3' failed .* It takes \(batch, \.\.\., 144\)\."),
        (small(), (1, 3, 8, 8), r"1×1×3×8×8"),
        (small(), (3, 2, 2), r"Conv2d '0' failed"),
        (nn.Sequential(nn.BatchNorm1d(4)), (5,), r"It takes \(batch, 4, \.\.\.\)"),
        (nn.Sequential(nn.Conv1d(2, 3, 3)), (3, 9), r"\(batch, 2, length\)"),
        (nn.Sequential(nn.Conv3d(2, 3, 3)), (3, 9, 9, 9), r"\(batch, 2, depth, height, width\)"),
        (TwoInputs(), (6,), r"TwoInputs itself failed .* 'image'"),
        (TwoInputs(), {"vector": (6,), "picture": (3, 5, 5)}, "picture"),
        (Nested(LooksAtData(lambda x: x if x.mean() > 0 else -x)), (3, 8, 8), "'body.1' does depends on the data"),
        (LooksAtData(lambda x: x[x > 0]), (3, 8, 8), "depends on the data"),
        (LooksAtData(lambda x: x.nonzero()), (3, 8, 8), "depends on the data: nonzero needs values"),
        (LooksAtData(lambda x: torch.zeros(int(x[0, 0, 0, 0]))), (3, 8, 8), "depends on the data"),
        (LooksAtData(lambda x: x.sum().tolist()), (3, 8, 8), "depends on the data"),
        (nn.Sequential(nn.ReLU(), nn.LazyConv2d(4, 3)), (3, 8, 8), "LazyConv2d '1' is lazy and has no sizes yet"),
        (nn.LazyLinear(4), (3,), "The model is lazy|LazyLinear"),
        (small(), (3, 0, 8), "at least 1, given"),
        (small(), "3x8x8", "An input is a shape without the batch"),
        (small(), 3, "given int"),
        (lambda x: x, (3, 8, 8), "torch.nn.Module, given function"),
    ],
)
def test_bad_input_is_one_sentence(net, given, message):
    with pytest.raises(InputError, match=message) as caught:
        analyse(net, given)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.filterwarnings("ignore")
def test_scripted_modules_are_refused():
    net = nn.Sequential(torch.jit.script(nn.Conv2d(3, 4, 3)))
    with pytest.raises(InputError, match="0 is a scripted module"):
        analyse(net, (3, 8, 8))


def test_an_exception_that_the_model_catches_is_no_failure():
    class Tries(nn.Module):
        def __init__(self):
            super().__init__()
            self.bad, self.good = Raises(), nn.Linear(3, 4)

        def forward(self, x):
            try:
                return self.bad(x)
            except KeyError:
                return self.good(x)

    assert analyse(Tries(), (3,)).macs == 12


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("3x224x224", Spec("", (3, 224, 224), None)),
        ("3×5", Spec("", (3, 5), None)),
        ("128:int64", Spec("", (128,), torch.int64)),
        ("image=3x5x5:float16", Spec("image", (3, 5, 5), torch.float16)),
        ("batch.image=7", Spec("batch.image", (7,), None)),
    ],
)
def test_inputs_as_people_write_them(text, spec):
    assert read_spec(text) == spec


@pytest.mark.parametrize("text", ["", "x", "3x", "3x0x5", "-3", "3.5", "image=", "=3", "3:", "a b=3", "٣"])
def test_what_is_no_input_says_how_one_is_written(text):
    with pytest.raises(InputError, match="written as its sizes"):
        read_spec(text)


def test_an_unknown_type_names_the_nearest():
    with pytest.raises(InputError, match="did you mean int64"):
        read_spec("3:int46")


def test_inputs_are_filled_in_order_or_by_name():
    image, index = filled([read_spec("3x4x4"), read_spec("5:int64")], 2, torch.float64)
    assert (image.shape, image.dtype) == ((2, 3, 4, 4), torch.float64)
    assert (index.shape, index.dtype, index.any().item()) == ((2, 5), torch.int64, False)
    nested = filled([read_spec("a.x=3"), read_spec("a.y=4"), read_spec("b=5")], 1, torch.float32)
    assert {name: list(one) if name == "a" else one.shape for name, one in nested.items()} == {
        "a": ["x", "y"],
        "b": (1, 5),
    }
    for specs in (["3", "a=4"], ["a=3", "a=4"]):
        with pytest.raises(InputError, match="has a name of its own"):
            filled([read_spec(one) for one in specs], 1, torch.float32)


def test_a_dictionary_inside_an_input_is_recorded_and_counted():
    class Takes(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, batch):
            return self.conv(batch["image"])

    table = analyse(Takes(), {"batch": {"image": (3, 5, 5)}})
    assert table.macs == 300
    assert [one["name"] for one in table.input] == ["batch.image"]
