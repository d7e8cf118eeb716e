"""Files as other libraries write them, full of random numbers: the same logits here, every tensor in its place."""

import random
from dataclasses import dataclass, field
from typing import Any

import peers
import pytest
import torch
from test_weights import written

from convlite.models import FAMILIES, create, load_weights, published
from convlite.models.weights.files import read
from convlite.models.weights.layouts import arrange

pytestmark = pytest.mark.usefixtures("fill_once")


@dataclass(frozen=True)
class Pair:
    """Our network and theirs; `first`: which of their modules' children come first in our order."""

    ours: str
    peer: str
    library: str = "timm"
    first: tuple[str, ...] = ()
    odd: int = 107  # a size that no stride divides
    options: dict[str, Any] = field(default_factory=dict)
    peer_options: dict[str, Any] = field(default_factory=dict)

    def make_peer(self):
        return getattr(peers, self.library)(self.peer, **self.peer_options)


BARE = {"aux_logits": False, "init_weights": False}
PAIRS = [
    Pair("vgg11", "vgg11"),
    Pair("vgg16_bn", "vgg16_bn"),
    Pair("vgg19_bn", "vgg19_bn", library="torchvision"),
    Pair("resnet18", "resnet18"),
    Pair("resnet34", "resnet34", library="torchvision"),
    Pair("resnet50", "resnet50"),
    Pair("resnet101", "resnet101"),
    Pair("resnet152", "resnet152"),
    Pair("resnext50_32x4d", "resnext50_32x4d"),
    Pair("resnext50_32x4d", "resnext50_32x4d", library="torchvision"),
    Pair("xception", "legacy_xception", first=("rep",)),
    Pair("xception41", "xception41", first=("stack",)),
    Pair("xception65", "xception65", first=("stack",)),
    Pair("xception71", "xception71", first=("stack",)),
    Pair("xception41p", "xception41p", first=("norm", "stack")),
    Pair("xception65p", "xception65p", first=("norm", "stack")),
    Pair("inception_v3", "inception_v3"),
    Pair("inception_v3", "inception_v3", library="torchvision", peer_options=BARE),
    Pair("inception_v4", "inception_v4", odd=151),
    Pair("inception_resnet_v2", "inception_resnet_v2", odd=151),
    Pair("googlenet", "googlenet", library="torchvision", peer_options=BARE),
    Pair("mobilenet_v1", "mobilenetv1_100"),
    Pair("mobilenet_v2", "mobilenetv2_100"),
    Pair("mobilenet_v2", "mobilenet_v2", library="torchvision"),
    Pair("mobilenet_v3_small", "mobilenetv3_small_100"),
    Pair("mobilenet_v3_small", "mobilenet_v3_small", library="torchvision"),
    Pair("mobilenet_v3_large", "mobilenetv3_large_100"),
    Pair("mobilenet_v3_large", "mobilenet_v3_large", library="torchvision"),
    Pair("shufflenet_v2_x0_5", "shufflenet_v2_x0_5", library="torchvision"),
    Pair("shufflenet_v2_x1_0", "shufflenet_v2_x1_0", library="torchvision"),
]
pairs = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair.peer}-{pair.library}")


def misplaced(ours, peer, first):
    """The peer's tensors that do not stand in the same place of our network."""
    mine, theirs = peers.tensors(ours), peers.tensors(peer, first)
    assert len(mine) == len(theirs)
    return [name for (_, a), (name, b) in zip(mine, theirs) if not torch.equal(a.flatten(), b.flatten())]


@pairs
def test_same_logits_at_the_native_and_at_an_odd_size(pair, tmp_path):
    torch.manual_seed(0)
    peer = peers.randomise_(pair.make_peer()).eval()
    suffix = ".safetensors" if pair.library == "timm" else ".pth"
    ours = create(pair.ours, **pair.options, pretrained=written(peer.state_dict(), tmp_path / f"peer{suffix}"))
    assert pair.library in ours.loaded.layout and not ours.loaded.left_out and not ours.loaded.fresh
    assert not misplaced(ours, peer, pair.first)
    for size in (FAMILIES[pair.ours].input[1], pair.odd):
        assert peers.difference(ours, peer, size) < 1e-4, size


@pairs
def test_the_order_of_layers_comes_from_the_names_alone(pair):
    with torch.device("meta"):
        peer = pair.make_peer()
    expected = [name for name, _ in peers.tensors(peer, pair.first)]
    layout, given = arrange(sorted(expected, reverse=True))
    assert pair.library in layout
    assert given == expected


@pairs
def test_two_tensors_of_one_shape_that_change_places_are_noticed(pair, tmp_path):
    """Else the test above could pass with a wrong order."""
    torch.manual_seed(0)
    peer = peers.randomise_(pair.make_peer())
    path = written(peer.state_dict(), tmp_path / "peer.safetensors")
    ours, state, draw = peers.bare(create, pair.ours), dict(read(path)[1]), random.Random(0)
    alike: dict[Any, list[str]] = {}
    for name, value in state.items():
        alike.setdefault(tuple(value.shape), []).append(name)
    a, b = draw.sample(draw.choice([names for names in alike.values() if len(names) > 1]), 2)
    load_weights(ours, written(state | {a: state[b], b: state[a]}, path))
    assert set(misplaced(ours, peer, pair.first)) == {a, b}


def test_preprocessing_is_what_timm_publishes():
    for pair in PAIRS:
        if pair.library == "timm" and not pair.ours.startswith("res"):  # resnets have been trained again since
            said, ours = peers.said(pair.peer), published(pair.ours)
            assert (ours.size[0], ours.crop) == (said["input_size"][1], said["crop_pct"]), pair
            assert (ours.mean, ours.std, ours.interpolation) == (said["mean"], said["std"], said["interpolation"])
