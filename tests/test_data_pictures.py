"""Pictures: what decoding gives is what Pillow gives, whatever the file's kind, and broken files never raise."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from convlite.data import jpeg, pictures
from convlite.preprocess import Preprocess


def plain(height, width, channels=3):
    return Preprocess((height, width), (0.0,) * channels, (1.0,) * channels)


def photo(height, width, seed=0):
    """Smooth colours with some noise, as photographs have."""
    source = np.random.default_rng(seed)
    coarse = Image.fromarray(source.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((width, height), 3)
    return Image.fromarray(
        (np.asarray(coarse) + source.normal(0, 6, (height, width, 3))).clip(0, 255).astype(np.uint8)
    )


def encoded(image, kind="jpeg", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


# --- JPEG


@given(
    st.integers(1, 90), st.integers(1, 90), st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]), st.integers(30, 100),
    st.integers(1, 8), st.booleans(), st.sampled_from([1, 2, 4, 8]),
)  # fmt: skip
@settings(deadline=None, max_examples=100)
def test_a_jpeg_has_the_pixels_that_pillow_gives(height, width, subsampling, quality, turn, progressive, by):
    exif = Image.Exif()
    exif[0x0112] = turn
    content = encoded(
        photo(height, width), subsampling=subsampling, quality=quality, exif=exif, progressive=progressive
    )
    sizes = []
    found = jpeg.decode(content, 3, lambda *size: sizes.append(size) or by)
    image = Image.open(io.BytesIO(content))
    upright = (width, height) if turn > 4 else (height, width)
    by = by if max(height, width) >= 8 else 1
    assert found is not None and found[1] == by and sizes == [upright]
    assert found[0].shape == (-(-upright[0] // by), -(-upright[1] // by), 3)
    if min(height, width) >= by:  # or Pillow stops at a larger scale
        image.draft(None, (width // by, height // by))
        assert np.array_equal(found[0], np.asarray(ImageOps.exif_transpose(image)))


@given(st.integers(40, 300), st.integers(40, 300), st.integers(0, 99), st.data())
@settings(deadline=None, max_examples=40)
def test_a_part_is_what_pillow_cuts_and_scales(height, width, seed, data):
    content = encoded(photo(height, width, seed), quality=90)
    h, w = data.draw(st.integers(8, height)), data.draw(st.integers(8, width))
    box = data.draw(st.integers(0, height - h)), data.draw(st.integers(0, width - w)), h, w
    found = pictures.read(content, plain(32, 24), lambda *size: box)
    whole = Image.open(io.BytesIO(content)).convert("RGB")
    part = whole.crop((box[1], box[0], box[1] + w, box[0] + h)).resize((24, 32), Image.Resampling.BILINEAR)
    difference = np.abs(found.permute(1, 2, 0).numpy().astype(int) - np.asarray(part))
    assert difference.mean() < 3
    assert difference.max() <= 1 or min(h // 32, w // 24) >= 2  # decoded at a smaller scale


def test_what_is_decoded_at_a_smaller_scale_is_close_to_pillow():
    """Over smooth pictures with noise the mean difference stays under two levels of 255, at every scale."""
    for seed, side in enumerate((64, 130, 260, 520)):
        content = encoded(photo(side, side, seed), quality=90)
        found = pictures.read(content, plain(32, 32), lambda h, w: (0, 0, h, w)).float()
        part = Image.open(io.BytesIO(content)).resize((32, 32), Image.Resampling.BILINEAR)
        theirs = torch.from_numpy(np.array(part)).permute(2, 0, 1).float()
        assert (found - theirs).abs().mean() < 2


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (encoded(Image.new("RGB", (8, 8)), "png"), "another format"),
        (encoded(Image.new("CMYK", (8, 8))), "four inks"),
        (encoded(photo(64, 64))[:-300], "cut short"),
        (b"\xff\xd8 and no more", "no header"),
    ],
)
def test_what_is_left_to_pillow(content, why):
    assert jpeg.decode(content, 3, lambda *size: 1) is None, why


def test_a_jpeg_that_pillow_takes_for_an_attack_is_refused_by_it(monkeypatch):
    monkeypatch.setattr(jpeg, "LARGEST", 10)
    assert jpeg.decode(encoded(photo(8, 8)), 3, lambda *size: 1) is None
    assert isinstance(pictures.read(encoded(photo(8, 8)), plain(8, 8)), torch.Tensor)


# --- pictures


def test_other_pictures_are_cut_in_the_middle_and_scaled(tmp_path):
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 20:60] = 255  # the middle square is white
    Image.fromarray(image).save(tmp_path / "wide.png")
    assert (pictures.read(tmp_path / "wide.png", plain(20, 20))[:, :, 1:-1] == 255).all()
    assert (pictures.read(tmp_path / "wide.png", plain(20, 20)) > 200).all()  # the edges, blurred by the scaling
    assert pictures.read(tmp_path / "wide.png", plain(40, 80)).float().mean() == 127.5


def test_a_picture_is_turned_upright(tmp_path):
    image = Image.fromarray(np.repeat(np.arange(0, 200, 10, dtype=np.uint8)[:, None], 40, axis=1))
    exif = Image.Exif()
    exif[0x0112] = 6  # held on its side
    image.save(tmp_path / "turned.png", exif=exif)
    assert pictures.size_of(tmp_path / "turned.png") == (40, 20)
    upright = pictures.read(tmp_path / "turned.png", plain(40, 20, 1))[0]
    assert (upright[:, :-1] > upright[:, 1:]).all() and (upright[0] == upright[-1]).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_colour_or_grey(mode, tmp_path):
    white = Image.new("L", (6, 6), 255)
    if mode == "I;16":
        white = Image.fromarray(np.full((6, 6), 65535, np.uint16))
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    (white if mode == "I;16" else white.convert("RGB").convert(mode)).save(path)
    for channels in (1, 3):
        assert (pictures.read(path, plain(6, 6, channels)) == 255).all()


@pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::RuntimeWarning"
)  # of broken headers, and large sizes in them
@given(st.sampled_from(["png", "jpeg", "gif", "bmp", "webp", "tiff"]), st.floats(0, 1), st.binary(max_size=4))
@settings(deadline=None, max_examples=150)
def test_broken_pictures_never_raise(kind, where, junk):
    stream = io.BytesIO()
    Image.effect_noise((16, 16), 60).convert("RGB").save(stream, kind)
    whole = stream.getvalue()
    at = int(where * len(whole))
    for broken in (whole[:at], whole[:at] + junk + whole[at + len(junk) :], junk):
        found = pictures.read(broken, plain(16, 16))
        assert found.shape == (3, 16, 16) if isinstance(found, torch.Tensor) else found
        assert isinstance(pictures.size_of(broken), tuple | str)
