"""Pictures that stay in files: the same images as in memory, whoever decodes them, and broken ones named."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from convlite import data
from convlite.data import Files, Images
from convlite.data.encoded import Part, content_of
from convlite.data.folders import listing
from convlite.errors import InputError
from convlite.preprocess import Preprocess, statistics

HOW = Preprocess((16, 16), (0.0,) * 3, (1.0,) * 3)


def encoded(number, size=(24, 20)):
    noise = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "jpeg")
    return stream.getvalue()


def files(count, broken=(), skip=False):
    content = [b"no picture" if i in broken else encoded(i) for i in range(count)]
    return Files(content, [f"{i:02}.jpg" for i in range(count)], torch.arange(count), HOW, skip, source="pets")


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(12):
            (tmp_path / "pets" / name / f"{i:02}.jpg").write_bytes(encoded(i))
    return tmp_path / "pets"


# --- reading


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_any_number_of_workers_gives_the_same_images(workers):
    every = files(23)
    cuts = torch.randperm(23, generator=torch.Generator().manual_seed(0)).split(5)
    window = lambda i: lambda h, w: (i % 5, i % 7, h - 7, w - 9)  # noqa: E731
    for windows in (None, window):
        found = list(every.parts(cuts, windows=windows, workers=workers))
        assert [len(part) for part in found] == [5, 5, 5, 5, 3]
        for part, cut in zip(found, cuts, strict=True):
            assert torch.equal(part.labels, cut)
            for pixels, i in zip(part.pixels, cut.tolist(), strict=True):
                assert torch.equal(pixels, every.read(i, windows and windows(i))[0])
    with pytest.raises(InputError, match="workers is 0 or more"):
        next(every.parts(cuts, workers=-1))


def test_no_more_is_decoded_than_is_needed_soon(monkeypatch):
    seen = []
    original = Files._try
    monkeypatch.setattr(Files, "_try", lambda self, i, window: (seen.append(i), original(self, i, window))[1])
    parts = files(100).parts(torch.arange(100).split(4), workers=2)
    next(parts)
    assert len(seen) <= 12
    parts.close()
    assert len(seen) <= 12


def test_a_selection_of_a_selection():
    every = files(10)
    some = every[torch.tensor([7, 3, 5])][torch.tensor([2, 0])]
    assert len(some) == 2 and some.labels.tolist() == [5, 7]
    assert torch.equal(some.read(0)[0], every.read(5)[0])
    assert every[2:4].labels.tolist() == [2, 3]


def test_memory_reads_as_files_do():
    every = files(6)
    whole = next(every.parts([torch.arange(6)]))
    window = lambda i: lambda h, w: (i, 2, 9, 11)  # noqa: E731
    inside = next(whole.parts([torch.tensor([4, 1])], windows=window))
    for pixels, label in zip(inside.pixels, inside.labels, strict=True):
        box = window(int(label))(16, 16)
        part = whole.pixels[label][None, :, box[0] : box[0] + 9, 2:13]
        expected = torch.nn.functional.interpolate(part, (16, 16), mode="bilinear", antialias=True)[0]
        assert torch.equal(pixels, expected)
    assert torch.equal(whole.read(3)[0], whole.pixels[3])


# --- broken ones


def test_a_broken_file_is_named_when_it_is_come_to():
    parts = files(9, broken={7}).parts(torch.arange(9).split(3))
    assert next(parts).labels.tolist() == [0, 1, 2]
    with pytest.raises(InputError, match=r"pets/07\.jpg can't be read \(it is no image.*skip_corrupt"):
        list(parts)
    with pytest.raises(InputError, match=r"pets/07\.jpg"):
        files(9, broken={7}).read(7)


def test_broken_files_are_left_out_and_counted():
    every = files(9, broken={1, 7, 8}, skip=True)
    labels = [part.labels.tolist() for part in every.parts(torch.arange(9).split(3))]
    assert labels == [[0, 2], [3, 4, 5], [6]]
    assert sorted(every.broken) == ["01.jpg", "07.jpg", "08.jpg"]
    assert "no image" in every.broken["07.jpg"]


@pytest.mark.parametrize("workers", [0, 3])
def test_the_next_readable_image_takes_a_broken_ones_place(workers):
    every = files(9, broken={1, 7, 8}, skip=True)
    parts = every.parts(torch.arange(9).split(3), replaced=True, workers=workers)
    assert [part.labels.tolist() for part in parts] == [[0, 2, 2], [3, 4, 5], [6, 0, 0]]
    with pytest.raises(InputError, match="None of 2 images can be read"):
        list(files(2, broken={0, 1}, skip=True).parts([torch.tensor([1])], replaced=True))


# --- loading


def test_large_pictures_stay_in_their_files_and_small_ones_do_not(folder):
    small = data.load(folder)
    assert isinstance(small.train, Images) and "in memory" in small.describe()
    lazy = data.load(folder, size=112)
    assert isinstance(lazy.train, Files) and "decoded from" in lazy.describe()
    assert (len(lazy.train), len(lazy.test)) == (len(small.train), len(small.test))
    assert torch.equal(lazy.train.labels, small.train.labels)


def test_files_hold_the_same_data_as_memory(folder):
    here, there = data.load(folder, in_memory=True), data.load(folder, in_memory=False, size=(20, 24))
    for mine, other in ((here.train, there.train), (here.test, there.test)):
        found = next(other.parts([torch.arange(len(other))]))
        assert torch.equal(found.pixels, mine.pixels) and torch.equal(found.labels, mine.labels)
    assert here.preprocess == there.preprocess  # all of so few are looked at
    assert here.preprocess.mean == statistics(here.train.pixels)[0]
    part = there.holdout(0.25)
    assert len(part.train) + len(part.test) == len(there.train)


def test_broken_files_show_up_while_training_and_are_counted(folder):
    for name in ("a/03.jpg", "b/05.jpg"):
        (folder / name).write_bytes(encoded(0)[:100])
    with pytest.raises(InputError, match=r"pets/a/03\.jpg can't be read"):
        data.load(folder, size=112)
    found = data.load(folder, size=112, skip_corrupt=True)
    list(found.test.parts(torch.arange(len(found.test)).split(4)))
    assert [name for name, _ in found.skipped] == ["a/03.jpg", "b/05.jpg"]


# --- archives


@pytest.mark.parametrize("pack", ["zip", "stored", "tar", "gztar"])
def test_members_are_read_where_they_lie(pack, folder, tmp_path):
    import shutil

    if pack == "stored":
        archive = str(tmp_path / "stored.zip")
        with zipfile.ZipFile(archive, "w") as packed:
            for path in sorted(folder.rglob("*.jpg")):
                packed.write(path, path.relative_to(tmp_path))
    else:
        archive = shutil.make_archive(str(tmp_path / "packed"), pack, tmp_path, "pets")
    found, same = listing(tmp_path / archive), listing(folder)
    assert set(found.files) == set(same.files)
    assert all(content_of(found.files[name]) == content_of(same.files[name]) for name in same.files)
    assert all(isinstance(file, Part) == (pack != "gztar") for file in found.files.values())


def test_an_archive_that_changed_meanwhile(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("x/y/a.jpg")
        member.size = len(encoded(0))
        archive.addfile(member, io.BytesIO(encoded(0)))
    (file,) = listing(tmp_path / "a.tar").files.values()
    (tmp_path / "a.tar").write_bytes(b"short")
    cut = Files([file], ["a.jpg"], torch.zeros(1), HOW)
    with pytest.raises(InputError, match="cut short"):
        cut.read(0)
    (tmp_path / "a.tar").unlink()
    with pytest.raises(InputError, match="No such file"):
        cut.read(0)
