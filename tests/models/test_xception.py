import peers
import pytest
import torch
from torch import nn

from convlite.errors import InputError
from convlite.kinds import Normal, Separable
from convlite.models import create
from convlite.nn import SeparableConv2d


def test_the_published_counts():
    assert peers.count("xception") == (22_855_952, 8_357_403_496)


def test_the_small_form_is_light_enough_for_small_machines():
    dense, light = peers.count("xception_small", conv=Normal()), peers.count("xception_small")
    resnet20 = peers.count("resnet20")[1]
    assert resnet20 < dense[1] < 1.5 * resnet20
    assert dense[1] > 5 * light[1]


def test_keras_numbers_differ_from_timms_at_even_pools_only():
    torch.manual_seed(0)
    timm, keras = create("xception_small").eval(), create("xception_small", mode="keras").eval()
    keras.load_state_dict(timm.state_dict())
    for norm in (m for m in keras.modules() if isinstance(m, nn.BatchNorm2d)):
        assert (norm.eps, norm.momentum) == (1e-3, 0.01)
        norm.eps = 1e-5
    odd, even = torch.randn(1, 3, 33, 33), torch.randn(1, 3, 32, 32)  # pools see 33, 17, 9; or 32, 16, 8
    torch.testing.assert_close(timm(odd), keras(odd))
    assert (timm(even) - keras(even)).abs().max() > 1e-6


def test_same_pool_is_tensorflows():
    # 74 → 37 is the one pool of a 299×299 image where SAME pads one pixel only, below and to the right
    net = create("xception", mode="keras", depth=0, width=0.05)
    pool = net.entry.block2.branch.pool
    x = torch.randn(2, 4, 74, 74)
    below = nn.functional.pad(x, (0, 1, 0, 1), value=-torch.inf)
    torch.testing.assert_close(pool(x), nn.functional.max_pool2d(below, 3, 2))
    x = x[:, :, :73, :73]
    torch.testing.assert_close(pool(x), nn.functional.max_pool2d(x, 3, 2, padding=1))


def test_what_the_notes_speak_of_is_an_argument():
    plain = create("xception_small", residual=False)
    assert not any("shortcut" in name for name, _ in plain.named_modules())
    turned = create("xception_small", order="pointwise_first", between="ELU")
    conv = turned.middle.block4.branch.conv1
    assert isinstance(conv, SeparableConv2d)
    assert [type(layer) for layer in conv.children()] == [nn.Conv2d, nn.ELU, nn.Conv2d]
    assert next(conv.children()).kernel_size == (1, 1)
    hidden = create("xception_small", hidden=(40, 30))
    assert hidden.num_features == 30
    assert [m.out_features for m in hidden.head.modules() if isinstance(m, nn.Linear)] == [40, 30, 10]
    dense = create("xception_small", conv=Normal())
    assert not any(isinstance(m, SeparableConv2d) for m in dense.modules())
    assert len(create("xception_small", depth=5).middle) == 5
    assert create("xception", width=0.5, depth=1).channels == [32, 64, 128, 364 + 4, 1024]


def test_the_shortcut_reads_what_no_activation_has_touched():
    torch.manual_seed(0)
    net = create("xception_small").eval()
    x = torch.randn(2, 64, 8, 8)
    before, block = x.clone(), net.middle.block4
    y = block(x)
    assert torch.equal(x, before)
    torch.testing.assert_close(y, x + block.branch(x))
    assert next(iter(net.entry.block1.branch.named_children()))[0] == "conv1"  # the first block: no activation
    assert next(iter(net.entry.block2.branch.named_children()))[0] == "act1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "caffe"}, "mode must be 'timm' or 'keras', given 'caffe'"),
        ({"conv": Separable(), "between": "ReLU"}, "give them inside conv="),
        ({"depth": -1}, "0 or more; given -1"),
        ({"hidden": (0,)}, "size of at least 1, given"),
        ({"width": 0}, "channels must be above 0, given 0"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        create("xception_small", **options)
