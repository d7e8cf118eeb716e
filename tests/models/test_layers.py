import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convlite import kinds
from convlite.errors import InputError
from convlite.models import create
from convlite.models.layers import Asked, Maker, Residual, eights
from convlite.models.pools import AvgPool2d, CoverMaxPool2d, MaxPool2d

sizes = st.integers(6, 40)
CHAINS = ("separable", "separable('pointwise_first')", "bottleneck", "asymmetric(4)", "shuffled(4)")


@given(size=sizes, kernel=st.integers(2, 3))
@settings(deadline=None, max_examples=30)
def test_a_ceil_mode_pool_keeps_its_last_window_when_it_is_dilated(size, kernel):
    x = torch.randn(1, 2, size, size + 3)
    pool = MaxPool2d(kernel, 2, ceil_mode=True)
    expected = pool(x)
    torch.testing.assert_close(expected, F.max_pool2d(x, kernel, 2, ceil_mode=True))
    fine = x.repeat_interleave(3, 2).repeat_interleave(3, 3)  # the same map, three times as fine
    pool.stride, pool.dilation = (1, 1), (3, 3)
    torch.testing.assert_close(pool(fine)[:, :, ::6, ::6], expected)


@given(size=sizes, rate=st.integers(2, 3), whole=st.booleans())
@settings(deadline=None, max_examples=30)
def test_a_dilated_average_pool_averages_the_same_pixels(size, rate, whole):
    x = torch.randn(2, 3, size, size + 1)
    pool = AvgPool2d(3, 1, padding=1, count_include_pad=whole)
    expected = pool(x)
    fine = torch.zeros(2, 3, rate * size, rate * (size + 1))
    fine[:, :, ::rate, ::rate] = x
    fine = fine[:, :, : rate * (size - 1) + 1, : rate * size + 1]
    pool.dilation, pool.padding = (rate, rate), (rate, rate)
    torch.testing.assert_close(pool(fine)[:, :, ::rate, ::rate], expected)


@given(size=sizes)
@settings(deadline=None, max_examples=20)
def test_a_covering_pool_fits_beside_a_padded_convolution(size):
    x = torch.randn(1, 2, size, size)
    conv = nn.Conv2d(2, 2, 3, 2, padding=1)
    assert CoverMaxPool2d(3, 2)(x).shape == conv(x).shape
    if size % 2 == 0:
        torch.testing.assert_close(CoverMaxPool2d(3, 2)(x), F.max_pool2d(x, 3, 2, ceil_mode=True))


def test_drop_path_leaves_out_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    residual = Residual(nn.Identity())
    x = torch.ones(4000, 1, 1, 1)
    assert torch.equal(residual(x), 2 * x)
    residual.drop = 0.5
    given = residual(x).flatten()
    assert set(given.tolist()) == {1.0, 3.0}
    assert abs(float(given.mean()) - 2) < 0.06
    assert torch.equal(residual.eval()(x), 2 * x)


def test_drop_path_rises_to_the_given_rate():
    rates = [m.drop for m in create("resnet20", drop_path=0.4).modules() if isinstance(m, Residual)]
    assert rates == pytest.approx([0.05 * i for i in range(9)])


def test_dropout_is_the_heads():
    net = create("vgg11_bn", hidden=(8, 8), dropout=0.1)
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [0.1, 0.1]


@given(width=st.floats(0.1, 3000))
@settings(deadline=None)
def test_widths_are_multiples_of_eight_and_hardly_smaller(width):
    rounded = eights(width)
    assert rounded % 8 == 0 and 0.9 * width <= rounded <= width + 8


def test_widths_below_zero():
    with pytest.raises(InputError, match="above 0, given -1"):
        eights(-1)


def test_a_maker_builds_the_asked_kind_where_legal_and_tells_where_not():
    maker = Maker(Asked(kinds.Depthwise()), published=kinds.Normal())
    assert maker.conv(8, 8, 3).groups == 8
    other = maker.conv(8, 16, 3)
    assert other.groups == 1 and maker.kept == {other: "a depthwise convolution of 8 channels gives 8, not 16"}
    assert maker.conv(8, 8, 1).groups == 1  # a kind speaks of what looks at neighbours
    assert maker.conv(3, 3, 3, stem=True).groups == 1


@pytest.mark.parametrize("kind", [None, *map(kinds.parse, CHAINS)], ids=str)
def test_signals_neither_die_nor_explode_in_a_fresh_network_without_norms(kind):
    torch.manual_seed(0)
    net = create("vgg16", conv=kind, hidden=(), features_only=True, width=0.5).eval()
    with torch.no_grad():
        last = net(torch.randn(2, 3, 64, 64))[-2]  # after 13 convolutions
    assert 0.03 < last.square().mean().sqrt() < 30
