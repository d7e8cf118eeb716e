"""Every engine gives every family's answers, published and lightened, for one image and eight, at two sizes."""

import copy

import peers
import pytest
import torch
from torch import nn

from convlite.kinds import Asymmetric, Bottleneck, Permuted, Separable, Shuffled
from convlite.models import create
from convlite.runtime import export, open_engine
from convlite.runtime.optimise import difference

NETS = [  # small members; the sizes are the least that the family takes without losing its pixels, and another
    ("vgg11_bn", {"width": 0.125, "hidden": (16,)}, 32),
    ("resnet20", {"conv": Separable(multiplier=2)}, 32),
    ("resnet20", {"conv": Bottleneck()}, 32),
    ("resnet20", {"conv": Asymmetric(2)}, 32),
    ("resnet20", {"conv": Shuffled(4)}, 32),
    ("resnet20", {"conv": Permuted(4)}, 32),
    ("mobilenet_v3_small", {"width": 0.25}, 64),
    ("shufflenet_v2_x0_5", {}, 64),
    ("xception_small", {"width": 0.25, "depth": 1, "head": "deeplabv3plus", "num_classes": 3}, 64),
]


@pytest.mark.parametrize(("name", "options", "size"), NETS, ids=str)
def test_every_engine_gives_the_networks_answers(name, options, size, tmp_path):
    torch.manual_seed(0)
    net = peers.randomise_(create(name, **{"num_classes": 10, **options})).eval()
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
