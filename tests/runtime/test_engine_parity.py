"""Every engine gives every family's answers, published and lightened, for one image and eight, at two sizes."""

import copy
from itertools import cycle

import peers
import pytest
import torch
from torch import nn

from convlite.kinds import Asymmetric, Bottleneck, Grouped, LowRank, Permuted, Separable, Shuffled
from convlite.models import create
from convlite.models.surgery import replace_
from convlite.runtime import export, open_engine
from convlite.runtime.optimise import difference

KINDS = (
    Separable(multiplier=2),
    Bottleneck(8, 8),
    Bottleneck(16, 16, slices=16),
    Asymmetric(4),
    LowRank(16, slices=2),
    Grouped(2),
    Shuffled(4),
    Permuted(4),
)


def kinds_in_turn() -> nn.Module:
    """A ResNet-20 with another kind in every layer."""
    net = create("resnet20")
    inner = [path for path, layer in net.named_modules() if isinstance(layer, nn.Conv2d) and layer.in_channels > 3]
    return replace_(net, dict(zip(inner, cycle(KINDS))))


NETS = {  # small members; the sizes are the least that the family takes without losing its pixels, and another
    "vgg11_bn": (lambda: create("vgg11_bn", num_classes=10, width=0.125, hidden=(16,)), 32),
    "kinds in turn": (kinds_in_turn, 32),
    "mobilenet_v3_small": (lambda: create("mobilenet_v3_small", num_classes=10, width=0.25), 64),
    "shufflenet_v2_x0_5": (lambda: create("shufflenet_v2_x0_5", num_classes=10), 64),
    "deeplab": (
        lambda: create("xception_small", num_classes=3, width=0.25, depth=1, head="deeplabv3plus"),
        64,
    ),
}


@pytest.mark.parametrize(("make", "size"), NETS.values(), ids=NETS)
def test_every_engine_gives_the_networks_answers(make, size, tmp_path):
    torch.manual_seed(0)
    net = peers.randomise_(make()).eval()
    exact = copy.deepcopy(net).double()
    made = export(net, tmp_path / "net.onnx", (3, size, size))
    sessions = [
        open_engine(net, "torch", threads=1),
        open_engine(net, "torch-channels-last", threads=1),
        open_engine(net, "convlite", threads=1),
        open_engine(made.path, "onnxruntime", threads=1),
        open_engine(made.path, "openvino", threads=1),
    ]
    other = size + 32 if made.shape[2] is None else size
    for n, height, width in ((1, size, size), (8, size, size), (2, other, other)):
        images = torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(n))
        with torch.no_grad():
            expected = exact(images.double())
        for session in sessions:
            assert difference(expected, torch.from_numpy(session(images.numpy()))) < 1e-4, session.name
    assert isinstance(net, nn.Module) and made.shape[0] is None
