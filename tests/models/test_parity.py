"""The same random weights and batch-norm statistics give the same logits here and in other libraries."""

from dataclasses import dataclass, field
from typing import Any

import peers
import pytest

from convlite.models import create

pytestmark = pytest.mark.usefixtures("fill_once")


@dataclass(frozen=True)
class Pair:
    """Our network and theirs; `first`: which of their modules' children come first in our order."""

    ours: str
    peer: str
    sizes: tuple[int, ...] = (64, 75)
    library: str = "timm"
    first: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    peer_options: dict[str, Any] = field(default_factory=dict)


BARE = {"aux_logits": False, "init_weights": False}
PAIRS = [
    Pair("vgg11_bn", "vgg11_bn"),
    Pair("resnet18", "resnet18"),
    Pair("resnet50", "resnet50"),
    Pair("resnext50_32x4d", "resnext50_32x4d"),
    Pair("xception41", "xception41", (75,), first=("stack",)),
    Pair("xception41p", "xception41p", (75,), first=("norm", "stack")),
    Pair("inception_v3", "inception_v3", (107, 150)),
    Pair("inception_v4", "inception_v4", (150,)),
    Pair("inception_resnet_v2", "inception_resnet_v2", (150,)),
    Pair(
        "googlenet", "googlenet", library="torchvision", peer_options={"aux_logits": False, "init_weights": False}
    ),
    Pair("mobilenet_v1", "mobilenetv1_100"),
    Pair("mobilenet_v2", "mobilenetv2_100"),
    Pair("mobilenet_v3_small", "mobilenetv3_small_100", options={"eps": 1e-5}),
    Pair("mobilenet_v3_large", "mobilenetv3_large_100", options={"eps": 1e-5}),
    Pair("mobilenet_v3_large", "mobilenet_v3_large", library="torchvision"),
    Pair("shufflenet_v2_x1_0", "shufflenet_v2_x1_0", library="torchvision"),
]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair.ours}-{pair.library}")
def test_same_logits(pair):
    peer = getattr(peers, pair.library)(pair.peer, **pair.peer_options)
    peers.assert_parity(peers.bare(create, pair.ours, **pair.options), peer, pair.sizes, pair.first)
