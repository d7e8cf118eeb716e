"""Data: what is loaded, how it is split, and what is said of data that can't be used."""

import io
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from convlite import data
from convlite.data import folders
from convlite.errors import InputError
from convlite.preprocess import Preprocess, statistics


def picture(path, size=(20, 20), colour=(200, 100, 50), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path))).integers(0, 40, (size[1], size[0], 3))
    Image.fromarray((noise + np.array(colour)).clip(0, 255).astype(np.uint8)).save(path, **options)


def plain(height, width, channels=3):
    return Preprocess((height, width), (0.0,) * channels, (1.0,) * channels)


@pytest.fixture
def folder(tmp_path):
    """Two classes of 15 pictures; names chosen so that some are held out."""
    for name, colour in {"black": (20, 20, 20), "white": (200, 200, 180)}.items():
        for i in range(15):
            picture(tmp_path / "pets" / name / f"{i:02}.png", colour=colour)
    return tmp_path / "pets"


# --- digits


def test_digits_are_the_same_for_everybody():
    found = data.load("digits")
    assert (len(found.train), len(found.test), found.shape) == (1347, 450, (3, 32, 32))
    assert found.classes == tuple("0123456789") and found.skipped == () and found.source == "digits"
    assert found.train.pixels.dtype == torch.uint8 and found.train.labels.dtype == torch.int64
    assert found.train.pixels.max() == 255  # 16 of 16
    assert (found.train.pixels[:, 0] == found.train.pixels[:, 2]).all()
    assert found.test.labels.bincount().tolist() == [45, 46, 44, 46, 45, 46, 45, 45, 43, 45]  # as in all
    assert data.load("digits", channels=1, size=16).shape == (1, 16, 16)


def test_digits_keep_their_shapes_when_scaled():
    from sklearn.datasets import load_digits

    found = data.load("digits", size=8)  # their own size: nothing is interpolated
    every = torch.cat([found.train.pixels, found.test.pixels])[:, 0].flatten(1).double()
    original = (torch.from_numpy(load_digits().data) * 255 / 16).round()
    order = [np.lexsort(rows.numpy().T) for rows in (every, original)]
    assert torch.equal(every[order[0]], original[order[1]])  # a partition: each digit once, on one side


# --- values


@given(st.integers(1, 3), st.integers(2, 40), st.integers(0, 2**31))
@settings(deadline=None, max_examples=30)
def test_statistics_and_normalise_are_those_of_float64(channels, n, seed):
    pixels = torch.randint(0, 256, (n, channels, 3, 5), generator=torch.Generator().manual_seed(seed))
    pixels = pixels.to(torch.uint8)
    images = data.Images(pixels, torch.zeros(n, dtype=torch.int64))
    mean, std = statistics(pixels)
    exact = (pixels.double() / 255).transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.tensor(mean, dtype=torch.float64), exact.mean(1))
    torch.testing.assert_close(torch.tensor(std, dtype=torch.float64), exact.std(1, correction=0))

    found = data.Data(images, images, ("a",), Preprocess((3, 5), mean, std), "made")
    floats = found.normalise(pixels)
    assert floats.dtype == torch.float32 and pixels.dtype == torch.uint8
    back = floats.double() * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    assert torch.equal((back * 255).round().to(torch.uint8), pixels)  # the inverse, to the last level
    torch.testing.assert_close(floats.mean((0, 2, 3)), torch.zeros(channels), atol=1e-5, rtol=0)


def test_a_constant_channel_does_not_divide_by_zero():
    _, std = statistics(torch.full((2, 1, 4, 4), 7, dtype=torch.uint8))
    assert std == (1 / 255,)


def test_holdout_parts_train_and_leaves_test_alone():
    found = data.load("digits", size=8)
    part = found.holdout(0.25, seed=3)
    assert (len(part.train), len(part.test)) == (1010, 337)
    together = torch.cat([part.train.pixels, part.test.pixels]).flatten(1).numpy()
    original = found.train.pixels.flatten(1).numpy()
    assert np.array_equal(together[np.lexsort(together.T)], original[np.lexsort(original.T)])
    assert torch.equal(part.test.labels, found.holdout(0.25, seed=3).test.labels)
    assert part.holdout(0.5).held_out == ((0.25, 3), (0.5, 0)) and not found.held_out
    for share in (1.0, -0.1, 1e-9, float("nan"), float("inf")):
        with pytest.raises(InputError, match="one side empty"):
            found.holdout(share)


# --- folders


@given(st.sets(st.text("abc/é ", min_size=1, max_size=8), max_size=60))
@settings(deadline=None, max_examples=30)
def test_what_is_held_out_depends_on_the_name_alone(names):
    held = {name for name in names if folders.held_out(name)}
    assert held == {name for name in sorted(names)[::-1] if folders.held_out(name)}


def test_about_a_fifth_is_held_out_and_always_the_same_fifth():
    names = [f"cat/{i:04}.jpg" for i in range(5000)]
    assert 0.18 < sum(map(folders.held_out, names)) / 5000 < 0.22
    assert [i for i in range(30) if folders.held_out(names[i])] == [8, 15, 28, 29]


def test_a_folder_is_parted_and_stays_so_when_files_are_added(folder):
    def sides():
        found = folders.split(folders.listing(folder), "pets")
        return set(found.train), set(found.test)

    train, test = sides()
    assert not train & test and len(train | test) == 30
    for i in range(15, 40):
        picture(folder / "black" / f"{i:02}.png")
    more_train, more_test = sides()
    assert train < more_train and test < more_test


def test_a_folder_of_class_folders(folder):
    found = data.load(folder, progress=False)
    assert found.classes == ("black", "white") and found.shape == (3, 20, 20)  # their own size
    assert len(found.train) + len(found.test) == 30 and len(found.test) > 0
    bright = found.train.pixels.float().mean((1, 2, 3)) > 120
    assert torch.equal(bright, found.train.labels.bool())
    assert found.preprocess.size == (20, 20) and found.source == str(folder)
    mean, _ = statistics(found.train.pixels)
    assert found.preprocess.mean == mean  # of train alone


def test_a_given_split_is_used_and_test_goes_before_val(tmp_path):
    for part, count in {"train": 4, "val": 3, "test": 2}.items():
        for name in ("a", "b"):
            for i in range(count):
                picture(tmp_path / part / name / f"{i}.jpg")
    found = data.load(tmp_path, size=(10, 12), channels=1)
    assert (len(found.train), len(found.test), found.shape) == (8, 4, (1, 10, 12))
    picture(tmp_path / "test" / "c" / "0.jpg")
    with pytest.raises(InputError, match=r"other classes in train than in test \(c\)"):
        data.load(tmp_path)


def test_train_may_be_the_name_of_a_class(tmp_path):
    for name in ("train", "car"):
        for i in range(20):
            picture(tmp_path / name / f"{i}.png", size=(4, 4))
    assert data.load(tmp_path).classes == ("car", "train")


@pytest.mark.parametrize("pack", ["zip", "tar", "gztar"])
def test_an_archive_is_the_folder_it_was_made_of(folder, tmp_path, pack):
    import shutil

    (folder / ".DS_Store").write_bytes(b"x")
    archive = shutil.make_archive(str(tmp_path / "packed"), pack, folder.parent, "pets")
    found, same = data.load(archive), data.load(folder)
    assert torch.equal(found.train.pixels, same.train.pixels)
    assert torch.equal(found.test.labels, same.test.labels)
    whole = Path(archive).read_bytes()
    Path(archive).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="packed"):
        data.load(archive)


# --- what can't be used


def test_unreadable_pictures_are_named_or_left_out(folder):
    whole = (folder / "black" / "03.png").read_bytes()
    (folder / "black" / "03.png").write_bytes(whole[: len(whole) // 2])
    (folder / "white" / "notes.txt").write_text("not an image")
    with pytest.raises(InputError, match=r"pets/black/03\.png can't be read \(.*truncated.*skip_corrupt"):
        data.load(folder)
    found = data.load(folder, skip_corrupt=True)
    assert [name for name, _ in found.skipped] == ["black/03.png", "white/notes.txt"]
    assert "no image" in dict(found.skipped)["white/notes.txt"]
    assert len(found.train) + len(found.test) == 29
    bright = found.train.pixels.float().mean((1, 2, 3)) > 120
    assert torch.equal(bright, found.train.labels.bool())  # the labels moved up with the pictures


def test_a_class_of_which_nothing_can_be_read(folder):
    for path in (folder / "black").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"class black of .* 15 broken files"):
        data.load(folder, skip_corrupt=True)


def one_class(root):
    picture(root / "only" / "a.png")


def an_empty_class(root):
    picture(root / "a" / "a.png")
    (root / "b").mkdir()


def loose_files(root):
    picture(root / "a.png")


def too_few(root):
    for name in ("a", "b"):
        picture(root / name / "00.png")


def train_alone(root):
    picture(root / "train" / "a" / "a.png")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda root: None, r"holds nothing: it needs one folder of images for each class"),
        (loose_files, r"holds only loose files"),
        (an_empty_class, r"class folder .*/b has no images"),
        (one_class, r"only one class, only: expected was at least two class folders"),
        (train_alone, r"only one class, train: expected was .*/test beside it"),
        (too_few, r"too few images"),
    ],
)
def test_folders_that_are_no_data(make, says, tmp_path):
    make(tmp_path)
    with pytest.raises(InputError, match=says) as caught:
        data.load(tmp_path)
    assert re.fullmatch(r"[^\n]+[.]", str(caught.value))


def test_names_and_numbers_that_are_no_data(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    for given_, says in {
        "digit": "no data 'digit': give 'digits', a folder",
        tmp_path / "a.txt": "neither",
    }.items():
        with pytest.raises(InputError, match=says):
            data.load(given_)
    with pytest.raises(InputError, match="not 2"):
        data.load(channels=2)
    with pytest.raises(InputError, match="no height and width"):
        data.load(size=0)


def test_an_unreadable_folder_is_named(folder, monkeypatch):
    def walk(root, onerror, followlinks):
        onerror(PermissionError(13, "Permission denied", str(root)))

    monkeypatch.setattr(folders.os, "walk", walk)
    with pytest.raises(InputError, match=r"Can't read .*pets: Permission denied"):
        data.load(folder)


def test_more_than_memory_is_refused_before_decoding(folder):
    with pytest.raises(InputError, match=r"takes \d+\.\d GB as 30 images of 1000000x1000000"):
        data.load(folder, size=1_000_000)


def test_an_archive_writes_nothing_and_an_empty_one_is_refused(tmp_path):
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        member = tarfile.TarInfo("../../evil/x.png")
        archive.addfile(member, io.BytesIO())
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    for name in ("evil.tar", "empty.zip"):
        with pytest.raises(InputError):
            data.load(tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"evil.tar", "empty.zip"}
