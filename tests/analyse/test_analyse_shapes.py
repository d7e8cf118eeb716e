"""The short cuts give the tensors that torch gives: shape, type and strides; or leave it to torch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convlite.analyse.shapes import RULES

aten = torch.ops.aten
sizes = st.lists(st.integers(1, 5), min_size=1, max_size=4)


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


def assert_as_torch(function, *args, answers=True):
    """The rule's answer, or its silence, against torch."""
    ours = RULES[function](args)
    if ours is None:
        assert not answers, "a plain case that the rule left to torch"
        return
    theirs = function(*args)
    pairs = zip(ours, theirs) if isinstance(ours, tuple) else [(ours, theirs)]
    for a, b in pairs:
        assert (a.shape, a.dtype, a.stride(), a.device) == (b.shape, b.dtype, b.stride(), b.device)


@given(
    dims=st.integers(1, 3),
    groups=st.integers(1, 2),
    c=st.integers(1, 2),
    m=st.integers(1, 2),
    k=st.lists(st.integers(1, 3), min_size=3, max_size=3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    bias=st.booleans(),
    size=st.lists(st.integers(1, 9), min_size=3, max_size=3),
)
@settings(deadline=None, max_examples=80)
def test_convolution(dims, groups, c, m, k, stride, padding, dilation, bias, size):
    x, weight = meta(2, c * groups, *size[:dims]), meta(m * groups, c, *k[:dims])
    fits = all(n + 2 * padding >= dilation * (kernel - 1) + 1 for n, kernel in zip(size[:dims], k))
    args = (x, weight, meta(m * groups) if bias else None, [stride] * dims, [padding] * dims, [dilation] * dims)
    rest = (False, [0] * dims, groups)
    if fits:
        assert_as_torch(aten.convolution.default, *args, *rest)
    else:
        assert RULES[aten.convolution.default]((*args, *rest)) is None


@pytest.mark.parametrize(
    ("x", "weight", "groups"),
    [((1, 4, 5, 5), (2, 3, 3, 3), 1), ((1, 4, 5, 5), (3, 2, 3, 3), 2), ((4, 5, 5), (2, 4, 3, 3), 1)],
)
def test_convolution_leaves_what_does_not_fit_to_torch(x, weight, groups):
    args = (meta(*x), meta(*weight), None, [1, 1], [0, 0], [1, 1], False, [0, 0], groups)
    assert_as_torch(aten.convolution.default, *args, answers=False)


@given(shape=sizes, keep=st.booleans(), data=st.data())
@settings(deadline=None, max_examples=60)
def test_mean(shape, keep, data):
    dims = data.draw(
        st.lists(st.integers(-len(shape), len(shape) - 1), min_size=1, unique_by=lambda d: d % len(shape))
    )
    assert_as_torch(aten.mean.dim, meta(*shape), dims, keep)


@given(
    n=st.lists(st.integers(1, 9), min_size=2, max_size=2),
    k=st.integers(1, 4),
    stride=st.one_of(st.none(), st.integers(1, 3)),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
)
@settings(deadline=None, max_examples=60)
def test_max_pool(n, k, stride, padding, dilation):
    x = meta(1, 2, *n)
    args = (x, [k, k], [] if stride is None else [stride], [padding], [dilation])
    if 2 * padding <= k and all(size + 2 * padding >= dilation * (k - 1) + 1 for size in n):
        assert_as_torch(aten.max_pool2d_with_indices.default, *args)
        assert_as_torch(aten.max_pool2d_with_indices.default, *args, True, answers=False)
    else:
        assert RULES[aten.max_pool2d_with_indices.default](args) is None


@given(shape=sizes, cut=st.integers(0, 3), ones=st.lists(st.booleans(), min_size=4, max_size=4))
@settings(deadline=None, max_examples=60)
def test_binary(shape, cut, ones):
    other = [1 if one else n for n, one in zip(shape, ones)][cut:]
    for function in (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor):
        assert_as_torch(function, meta(*shape), meta(*other))
        assert_as_torch(function, meta(*shape), 2.5)
        assert_as_torch(function, meta(*other), meta(*shape), answers=other == shape)
        assert_as_torch(function, meta(*shape), meta(*other, dtype=torch.float64), answers=False)
    assert_as_torch(aten.add_.Tensor, meta(*shape), meta(*other))


def test_every_unary_rule():
    for function, rule in RULES.items():
        if rule.__name__.startswith("_unary"):
            assert_as_torch(function, meta(2, 3, 4))
            if not rule.__name__.endswith("_"):
                assert_as_torch(function, meta(2, 3, 4, dtype=torch.float16))
                assert_as_torch(
                    function, meta(2, 3, 4, 5).contiguous(memory_format=torch.channels_last), answers=False
                )


@given(shape=st.lists(st.integers(1, 5), min_size=2, max_size=4), affine=st.booleans())
@settings(deadline=None, max_examples=30)
def test_batch_norm(shape, affine):
    vectors = [meta(shape[1]) if affine or i > 1 else None for i in range(4)]
    args = (meta(*shape), *vectors, False, 0.1, 1e-5)
    ours, theirs = RULES[aten.native_batch_norm.default](args), aten.native_batch_norm.default(*args)
    assert (ours[0].shape, ours[0].dtype, ours[0].stride()) == (
        theirs[0].shape,
        theirs[0].dtype,
        theirs[0].stride(),
    )
    assert [statistics.numel() for statistics in ours[1:]] == [0, 0]  # as on a processor; a GPU returns copies
    assert_as_torch(aten.native_batch_norm.default, meta(*shape), *vectors, True, 0.1, 1e-5, answers=False)
    assert RULES[aten.native_batch_norm.default]((meta(3, 9), *vectors, False, 0.1, 1e-5)) is None


@given(shape=sizes, dims=st.integers(1, 2))
@settings(deadline=None, max_examples=30)
def test_layer_norm(shape, dims):
    normalized = shape[-dims:]
    assert_as_torch(aten.native_layer_norm.default, meta(*shape), normalized, meta(*normalized), None, 1e-5)


@given(n=st.integers(1, 4), c=st.integers(1, 4), m=st.integers(2, 5), wrong=st.booleans())
@settings(deadline=None, max_examples=20)
def test_addmm(n, c, m, wrong):
    if wrong:
        assert RULES[aten.addmm.default]((meta(m), meta(n, c + 1), meta(c, m))) is None
    else:
        assert_as_torch(aten.addmm.default, meta(m), meta(n, c), meta(c, m))
