"""Pictures as a network takes them: what timm's own transforms make of them, and the value that says so."""

import numpy as np
import peers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from convlite.data import pictures
from convlite.errors import InputError
from convlite.preprocess import HALF, IMAGENET, Preprocess

sides = st.integers(5, 90)
LEVELS = 2.1  # of 255 that two roundings may differ by


@given(
    sides, sides, st.integers(4, 40), st.floats(0.3, 1), st.sampled_from(["bilinear", "bicubic", "lanczos"]),
    st.integers(0, 999),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_pixels_are_those_of_timm(tmp_path_factory, width, height, size, crop, interpolation, seed):
    # Of so little contrast that no filter overshoots: Pillow scales columns or rows first, whichever is less work,
    # and what is cut off at black and white between the two would depend on it.
    noise = np.random.default_rng(seed).integers(96, 160, (height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    path = tmp_path_factory.mktemp("pictures") / "noise.png"
    picture.save(path)
    how = Preprocess((size, size), *HALF, crop, interpolation)
    transform = peers.transforms(
        input_size=(3, size, size), crop_pct=crop, interpolation=interpolation, mean=HALF[0], std=HALF[1]
    )
    given = how.normalise(pictures.read(path, how)[None])[0]
    torch.testing.assert_close(given, transform(picture), rtol=0, atol=LEVELS / 255 / HALF[1][0])


def test_a_common_photograph_is_pixel_for_pixel_that_of_timm(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 400), dtype=np.uint8)
    picture = Image.fromarray(noise).convert("RGB")
    picture.save(tmp_path / "noise.png")
    how = Preprocess((224, 224), *IMAGENET, 0.875, "bicubic")
    transform = peers.transforms(input_size=(3, 224, 224), crop_pct=0.875, interpolation="bicubic")
    given = how.normalise(pictures.read(tmp_path / "noise.png", how)[None])[0]
    torch.testing.assert_close(given, transform(picture), rtol=0, atol=1.1 / 255 / min(how.std))  # one level


def test_a_long_strip_takes_no_more_memory_than_it_has(tmp_path):
    Image.new("L", (60000, 2), 255).save(tmp_path / "strip.png")
    how = Preprocess((224, 224), (0.0,), (1.0,))
    assert (pictures.read(tmp_path / "strip.png", how) == 255).all()


def test_a_value_is_written_and_read_again():
    how = Preprocess((32, 48), (0.1,), (0.2,), 0.9, "lanczos")
    assert Preprocess.from_dict(how.to_dict()) == how and how.shape == (1, 32, 48)
    assert Preprocess.from_dict({"size": [8, 8], "mean": [0.5], "std": [1.0]}).crop == 1.0


def test_other_channels_take_the_average():
    how = Preprocess((32, 32), *IMAGENET).resized((1, 16, 20))
    assert how.size == (16, 20) and how.mean == pytest.approx((0.449,), abs=1e-3) and how.channels == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": [8]}, "no height and width"),
        ({"size": [0, 8]}, "no height and width"),
        ({"mean": [0.5, 0.5]}, "don't fit"),
        ({"std": [0.0]}, "don't fit"),
        ({"crop": 1.5}, "crop is the share"),
        ({"interpolation": "cubic"}, "no interpolation 'cubic'"),
    ],
)
def test_what_is_refused(change, message):
    fine = {"size": [8, 8], "mean": [0.5], "std": [1.0]}
    with pytest.raises(InputError, match=message):
        Preprocess.from_dict(fine | change)
    with pytest.raises(InputError, match="lacks std"):
        Preprocess.from_dict({"size": [8, 8], "mean": [0.5]})


@given(st.integers(1, 4), st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_pixels_come_back_as_they_were(channels, seed):
    source = np.random.default_rng(seed)
    mean, std = source.uniform(0, 1, channels), source.uniform(0.01, 2, channels)
    how = Preprocess((16, 16), tuple(mean.tolist()), tuple(std.tolist()))
    pixels = torch.from_numpy(source.integers(0, 256, (3, channels, 16, 16), dtype=np.uint8))
    assert torch.equal(how.pixels(how.normalise(pixels)), pixels)
