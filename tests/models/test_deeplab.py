"""DeepLabV3+: torchvision's atrous pyramid where that is the same, and what it adds to any backbone."""

import importlib

import peers
import pytest
import torch
from torch import nn

from convlite.errors import InputError
from convlite.kinds import Asymmetric, Grouped, Normal
from convlite.models import create, load_weights
from convlite.models.deeplab import DeepLabHead
from convlite.models.layers import Asked
from convlite.models.saved import load, save

pytestmark = pytest.mark.usefixtures("fill_once")
SMALL = {"xception_small": {"depth": 1}, "mobilenet_v2": {"width": 0.5}, "resnet18": {"width": 0.25}, "vgg11": {}}


def make(name="xception_small", **more):
    torch.manual_seed(0)
    return create(name, **SMALL[name], head="deeplabv3plus", num_classes=5, **more).eval()


def test_the_pyramid_is_torchvisions_where_its_convolutions_are_dense():
    peers.torchvision("resnet18")  # it can be imported from here on
    deeplabv3 = importlib.import_module("torchvision.models.segmentation.deeplabv3")
    torch.manual_seed(0)
    peer = peers.randomise_(deeplabv3.ASPP(24, [6, 12, 18], 16)).eval()
    ours = DeepLabHead([8, 24], [4, 16], Asked(Normal(), num_classes=3), width=16).eval()
    theirs, mine = peers.tensors(peer), peers.tensors(ours.atrous) + peers.tensors(ours.project)
    for (_, value), (_, source) in zip(mine, theirs, strict=True):
        value.data.copy_(source)
    x = torch.randn(2, 24, 40, 30)
    with torch.no_grad():
        torch.testing.assert_close(ours.project(ours.atrous(x)), peer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_every_pixel_gets_a_score_for_every_class(name, tmp_path):
    net = make(name)
    x = torch.randn(2, 3, 70, 99)
    with torch.no_grad():
        assert net(x).shape == (2, 5, 70, 99)
        assert torch.equal(load(save(net, tmp_path))(x), net(x))
        net.reset_classifier(2)
        assert net(x).shape == (2, 2, 70, 99)


@pytest.mark.parametrize("kind", [Normal(), Grouped(4), Asymmetric(2)], ids=str)
def test_with_any_kind_in_encoder_and_decoder(kind):
    net = make(conv=kind)
    assert net.placed > create("xception_small", depth=1, conv=kind).placed
    net.train()
    scores = net(torch.randn(2, 3, 32, 48))
    nn.functional.cross_entropy(scores, torch.randint(0, 5, (2, 32, 48))).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_the_encoder_keeps_its_published_weights(tmp_path):
    classifier = create("xception_small", depth=1)
    path = save(classifier, tmp_path) / "model.safetensors"
    net = make(pretrained=path)
    assert torch.equal(next(net.parameters()), next(classifier.parameters()))
    assert set(net.loaded.left_out) == {"head.classifier.weight", "head.classifier.bias"}
    assert all(name.startswith("head.") for name in net.loaded.fresh)
    assert load_weights(net, path).fresh == net.loaded.fresh


@pytest.mark.parametrize(("stride", "rates"), [(16, (6, 12, 18)), (8, (12, 24, 36))])
def test_rates_follow_the_output_stride(stride, rates):
    net = make("mobilenet_v2", output_stride=stride)
    assert net.strides[-1] == stride
    found = {m.dilation[0] for m in net.head.modules() if isinstance(m, nn.Conv2d)} - {1}
    assert found == set(rates)


def test_what_is_refused():
    with pytest.raises(InputError, match="no head 'deeplab'; did you mean deeplabv3plus"):
        create("xception_small", head="deeplab")
    with pytest.raises(InputError, match="at least one class"):
        create("xception_small", head="deeplabv3plus", num_classes=0)
    with pytest.raises(InputError, match="one of the two"):
        create("xception_small", head="deeplabv3plus", features_only=True)
    with pytest.raises(InputError, match="two or more"):
        make().train()(torch.randn(1, 3, 32, 32))
