"""A fused convolution gives what its plain form defines, whatever its shape and however many threads run it."""

import gc
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convlite import kernels
from convlite.errors import InputError, RunError
from convlite.kernels import FusedConv2d, Part, Pool, build
from convlite.runtime import open_engine

pytestmark = pytest.mark.skipif(kernels.why_not() is not None, reason=str(kernels.why_not()))
INFINITE = (-math.inf, math.inf)


@st.composite
def cases(draw):
    """A fused convolution, and the shape of images that it takes."""
    c = draw(st.sampled_from([1, 3, 4, 6, 8, 12, 16, 21, 28, 47]))  # vectors of 4, 8 and 16, and what is left over
    m = draw(st.sampled_from([1, 5, 8, 16, 17, 24, 40]))
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (5, 5), (3, 1), (2, 4), (7, 7), (5, 3)]))
    pair = st.tuples(st.integers(1, 2), st.integers(1, 2))
    how = {"stride": draw(pair), "dilation": draw(pair), "padding": draw(st.tuples(*[st.integers(0, 7)] * 2))}
    bounds = st.sampled_from([INFINITE, (0.0, math.inf), (0.0, 0.5)])
    form, relu, r = (
        draw(st.sampled_from(["dense", "both", "depthwise", "grouped", "grouped both"])),
        draw(st.booleans()),
        draw(st.integers(1, 3)),
    )
    torch.manual_seed(draw(st.integers(0, 99)))

    def part(*shape, **rest):
        low, high = draw(bounds)
        bias = torch.randn(shape[0]) if draw(st.booleans()) else None
        return Part(torch.randn(shape), bias, low=low, high=high, **rest)

    if form == "dense":
        fused = FusedConv2d(part(m, c, *kernel, **how))
    elif form == "both":
        fused = FusedConv2d(part(m, r * c, 1, 1), part(r * c, 1, *kernel, groups=c, **how), relu=relu)
    elif form == "depthwise":
        fused = FusedConv2d(None, part(c, 1, *kernel, groups=c, **how), relu=relu)
    else:  # groups of several channels, or of one and several outputs
        groups, each = draw(st.integers(2, 9)), draw(st.integers(1, 4))
        c, mid = groups * each, groups * draw(st.integers(1, 4))
        grouped = part(mid, each, *kernel, groups=groups, **how)
        fused = FusedConv2d(part(m, mid, 1, 1) if form == "grouped both" else None, grouped, relu=relu)
    least = [d * (k - 1) + 1 for d, k in zip(how["dilation"], kernel)]
    height, width = (size + draw(st.integers(0, 12)) for size in least)
    return fused, (draw(st.integers(1, 3)), c, height, width)


def double(part):
    if part is None:
        return None
    bias = None if part.bias is None else part.bias.double()
    return replace(part, weight=part.weight.double(), bias=bias)


def absolute(part):
    """With which a convolution of absolute values gives the size of what is added up, and not of the sum."""
    if part is None:
        return None
    bias = None if part.bias is None else part.bias.abs()
    return replace(part, weight=part.weight.abs(), bias=bias, low=-math.inf, high=math.inf)


def exact(fused, x, residual, how=lambda part: part):
    """By the definition, in double precision; `how` may change the parts."""
    x = x.double().relu() if fused.relu else x.double()
    grouped, dense = how(double(fused.grouped)), how(double(fused.dense))
    residual = None if residual is None else residual.double()
    if dense is None:
        return grouped(x, residual)
    return dense(x if grouped is None else grouped(x), residual)


@given(case=cases(), threads=st.integers(1, 3), added=st.booleans())
@settings(deadline=None, max_examples=150)
def test_it_is_no_farther_from_the_exact_answer_than_the_plain_form(case, threads, added):
    fused, shape = case
    x = torch.randn(shape)
    residual = torch.randn_like(fused.plain(x)) if added else None
    wanted, plain = exact(fused, x, residual), fused.plain(x, residual)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = fused(x, residual)
    finally:
        torch.set_num_threads(before)
    assert found.shape == plain.shape and found.is_contiguous(memory_format=torch.channels_last)
    sizes = exact(fused, x.abs(), None if residual is None else residual.abs(), absolute)
    reach = 2**-23 * float(sizes.max())  # a rounding or two of it, where the plain form happens to make less
    assert float((found - wanted).abs().max()) <= 2 * float((plain - wanted).abs().max()) + reach


def test_nothing_else_than_float32_images_is_taken():
    fused = FusedConv2d(Part(torch.randn(4, 3, 3, 3)))
    for bad in (torch.randn(1, 4, 5, 5), torch.randn(3, 5, 5), torch.randn(1, 3, 5, 5).double()):
        with pytest.raises(InputError, match=r"Expected float32 images \(N, 3, H, W\)"):
            fused(bad)
    with pytest.raises(InputError, match="given some on meta"):
        fused(torch.empty(1, 3, 5, 5, device="meta"))
    with pytest.raises(InputError, match="2x5 are smaller"):
        fused(torch.randn(1, 3, 2, 5))
    with pytest.raises(InputError, match=r"Expected a residual of torch\.float32"):
        fused(torch.randn(1, 3, 5, 5), torch.randn(1, 4, 5, 5))


@pytest.mark.parametrize(
    ("dense", "depthwise", "relu", "why"),
    [
        (None, None, False, "no other"),
        (Part(torch.zeros(4, 3, 3, 3)), None, True, "the ReLU could be for"),
        (Part(torch.zeros(4, 2, 3, 3), groups=2), None, False, "2 groups"),
        (None, Part(torch.zeros(4, 5, 3, 3), groups=2), False, "kernels of"),
        (None, Part(torch.zeros(4, 1, 40, 40), groups=4), False, "kernels of"),
        (Part(torch.zeros(4, 4, 1, 1), padding=(1, 1)), Part(torch.zeros(4, 1, 3, 3), groups=4), False, "a 1×1 of"),
    ],
)
def test_parts_that_do_not_stand_together_are_refused(dense, depthwise, relu, why):
    with pytest.raises(InputError, match=why):
        FusedConv2d(dense, depthwise, relu=relu)


def test_nan_stays_nan_behind_every_bound():
    part = Part(torch.ones(5, 3, 1, 1), low=0.0, high=6.0)
    depthwise = Part(torch.ones(3, 1, 3, 3), padding=(1, 1), groups=3, low=0.0, high=6.0)
    x = torch.full((1, 3, 9, 9), math.nan)
    for fused in (FusedConv2d(part), FusedConv2d(part, depthwise, relu=True), FusedConv2d(None, depthwise)):
        assert bool(fused(x).isnan().all())


def test_no_image_gives_no_image():
    fused = FusedConv2d(Part(torch.randn(4, 3, 3, 3)))
    assert fused(torch.randn(0, 3, 5, 5)).shape == (0, 4, 3, 3)


def test_many_threads_of_the_caller_may_be_in_one_layer():
    fused = FusedConv2d(Part(torch.randn(8, 6, 1, 1)), Part(torch.randn(6, 1, 3, 3), padding=(1, 1), groups=6))
    images = [torch.randn(1, 6, 5 + i, 9) for i in range(12)]
    with ThreadPoolExecutor(4) as pool:
        for x, y in zip(images, pool.map(fused, images)):
            torch.testing.assert_close(y, fused.plain(x), atol=1e-4, rtol=1e-4)


def test_memory_is_used_again_only_once_nobody_has_it():
    pool = Pool()
    one = pool.empty((2, 3, 4, 5))
    one.fill_(7)
    kept, where = one[0, 1], one.data_ptr()
    del one
    other = pool.empty((2, 3, 4, 5)).fill_(0)
    assert other.data_ptr() != where and bool((kept == 7).all())
    del kept, other
    gc.collect()
    assert pool.empty((2, 3, 4, 4)).data_ptr() == where or pool.empty((2, 3, 4, 4)).data_ptr() == where


def test_without_a_compiler_the_engine_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    build.library.cache_clear()
    assert "no C++ compiler" in kernels.why_not()
    with pytest.raises(InputError, match="no C\\+\\+ compiler"):
        open_engine(torch.nn.Conv2d(3, 4, 3), "convlite")


def test_a_compiler_that_fails_is_told_and_leaves_nothing(monkeypatch, tmp_path):
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho no such flag >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    build.library.cache_clear()
    with pytest.raises(RunError, match="can't compile the kernels: no such flag"):
        build.library()
    assert "no such flag" in kernels.why_not()
    with pytest.raises(InputError, match="no such flag"):
        open_engine(torch.nn.Conv2d(3, 4, 3), "convlite")
    assert not list(tmp_path.glob("cache/**/*.so"))
