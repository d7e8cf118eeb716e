"""Images with masks: they belong together, are cut together, and what doesn't fit is named."""

import io
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from convlite import data
from convlite.data import Files, Images
from convlite.data.masks import Masks, values
from convlite.errors import InputError
from convlite.preprocess import Preprocess
from convlite.train import Recipe
from convlite.train.batches import batches


def drawn(number, size=(40, 30)):
    """A mask of blocks of 0 to 4 and 9 for none, and an image whose colours say the same."""
    blocks = (
        np.random.default_rng(number).choice([0, 1, 2, 3, 4, 9], (size[1] // 10, size[0] // 10)).astype(np.uint8)
    )
    mask = blocks.repeat(10, 0).repeat(10, 1)
    return mask, np.stack([mask * 25] * 3, 2)


def fill(folder, count=3, size=(40, 30)):
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        mask, image = drawn(i, size)
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png")
        Image.fromarray(image).save(folder / "images" / f"{i}.bmp")
    return folder


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path / "streets" / "train", 6)
    fill(tmp_path / "streets" / "test", 2)
    return tmp_path / "streets"


def whole(images):
    return next(images.parts([torch.arange(len(images))]))


def test_a_folder_of_images_and_masks(folder):
    found = data.load(folder, ignore=9)
    assert isinstance(found.train, Files) and (len(found.train), len(found.test)) == (6, 2)
    assert found.classes == ("0", "1", "2", "3", "4") and found.ignore == 9 and found.shape == (3, 30, 40)
    part = whole(found.train)
    assert part.labels.dtype == torch.uint8 and part.labels.shape == (6, 30, 40)
    for i, (pixels, mask) in enumerate(zip(part.pixels, part.labels, strict=True)):
        assert np.array_equal(mask, drawn(i)[0]) and torch.equal(pixels[0], mask * 25)
    with pytest.raises(InputError, match="a mask each and no class"):
        _ = found.train.labels
    assert len(found.holdout(0.5).test) == 3


def test_names_of_the_classes(folder):
    assert data.load(folder, ignore=9, classes=7).classes == tuple("0123456")
    assert data.load(folder, ignore=9, classes=("a", "b", "c", "d", "e")).classes == tuple("abcde")
    (folder / "classes.txt").write_text("sky\nroad\ntree\n\ncar\nsign\n")
    assert data.load(folder, ignore=9).classes == ("sky", "road", "tree", "car", "sign")


def test_an_archive_and_memory_hold_the_same(folder, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "packed"), "tar", tmp_path, "streets")
    one, other = data.load(folder, ignore=9), data.load(archive, ignore=9, in_memory=True)
    assert isinstance(other.train, Images)
    assert torch.equal(whole(one.train).pixels, other.train.pixels)
    assert torch.equal(whole(one.test).labels, other.test.labels)


def test_without_a_split_some_are_held_out(tmp_path):
    found = data.load(fill(tmp_path / "all", 20), ignore=9)
    assert len(found.train) + len(found.test) == 20 and 0 < len(found.test) < 10


def test_image_and_mask_are_cut_and_turned_together(folder):
    found = data.load(folder, ignore=9, size=(24, 32))
    for in_memory in (False, True):
        images = data.load(folder, ignore=9, size=(24, 32), in_memory=in_memory).train
        for recipe in (Recipe(shift=0), Recipe(shift=0, flip=True, crop=0.2), Recipe(shift=2, flip=True)):
            for pixels, masks in batches(images, recipe, 0, 1, torch.device("cpu"), ignore=9):
                assert set(masks.unique().tolist()) <= {0, 1, 2, 3, 4, 9}
                inside = masks != 9
                alike = (pixels[:, 0].int() - masks.int() * 25).abs() <= 2
                assert alike[inside].float().mean() > 0.6  # but for the blurred edges of blocks
    assert found.preprocess.size == (24, 32)


def test_masks_with_a_palette_are_numbers(tmp_path):
    mask, _ = drawn(0)
    image = Image.fromarray(mask, "L").convert("P")
    image.putdata(mask.ravel().tolist())
    image.putpalette([i for level in range(256) for i in (level, 255 - level, 7)])
    image.save(tmp_path / "a.png")
    assert np.array_equal(values(tmp_path / "a.png"), mask)


def save(image, kind="png"):
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def test_what_a_single_mask_says_of_itself():
    how = Preprocess((4, 4), (0.0,), (1.0,))
    masks = Masks([save(Image.new("RGB", (4, 4))), save(Image.new("L", (4, 4), 7)), b""], 3, 255)
    assert "mode RGB" in masks.read(0, how)
    assert "holds 7, beyond the 3 classes" in masks.read(1, how)
    assert "no image" in masks.read(2, how)
    every = Files([save(Image.new("L", (4, 4)))] * 3, list("abc"), masks, how)
    with pytest.raises(InputError, match=r"b can't be read \(its mask holds 7"):
        every.read(1)


def beyond(folder):
    Image.new("L", (40, 30), 200).save(folder / "train" / "masks" / "1.png")


def other_size(folder):
    Image.new("L", (40, 31)).save(folder / "test" / "masks" / "1.png")


def no_mask(folder):
    (folder / "train" / "masks" / "2.png").unlink()


def no_image(folder):
    (folder / "train" / "images" / "2.bmp").unlink()


def no_masks(folder):
    shutil.rmtree(folder / "train" / "masks")


def no_test(folder):
    shutil.rmtree(folder / "test")


def colour(folder):
    Image.new("RGB", (40, 30)).save(folder / "train" / "masks" / "4.png")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (beyond, r"mask .*train/masks/1\.png holds 200, beyond the 5 classes"),
        (other_size, r"test/masks/1\.png is of 31x40 and its image of 30x40"),
        (no_mask, r"image .*train/images/2\.bmp has no mask of that name"),
        (no_image, r"mask .*train/masks/2\.png has no image of that name"),
        (no_masks, r"train/masks has no files"),
        (no_test, r"only train, nothing to measure on"),
        (colour, r"train/images/4\.bmp or its mask can't be read \(its mask has the mode RGB"),
    ],
)
def test_masks_that_are_no_data(spoil, says, folder):
    spoil(folder)
    with pytest.raises(InputError, match=says) as caught:
        data.load(folder, ignore=9, classes=5)
    assert str(caught.value).count("\n") == 0


def test_broken_ones_are_left_out_and_counted(folder):
    colour(folder)
    (folder / "train" / "images" / "0.bmp").write_bytes(b"BM")
    found = data.load(folder, ignore=9, skip_corrupt=True)
    assert [name for name, _ in found.skipped] == ["train/images/0.bmp", "train/images/4.bmp"]
    assert len(whole(found.train)) == 4


def test_one_class_is_none(tmp_path):
    folder = fill(tmp_path / "all", 20)
    for path in (folder / "masks").iterdir():
        Image.new("L", (40, 30)).save(path)
    with pytest.raises(InputError, match="at least two are needed"):
        data.load(folder)
