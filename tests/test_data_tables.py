"""Tables: parquet files, WebDataset shards and names on the hub, read with `datasets`."""

import io
import tarfile

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image

from convlite import data
from convlite.data import Files, Images, Stream, stream, tables
from convlite.errors import InputError
from convlite.train import Recipe
from convlite.train.batches import batches

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """What `datasets` prepares goes to a folder of the test's own."""
    config = pytest.importorskip("datasets").config
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)  # it waits 5 s after shuffled parquet


def encoded(number, size=(24, 20)):
    noise = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "png")
    return stream.getvalue()


def rows(count, label=lambda i: i % 3, start=0):
    return [{"image": {"bytes": encoded(start + i), "path": None}, "label": label(i)} for i in range(count)]


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.Table.from_pylist(values), path)
    return path


def shard(path, numbers, label=lambda i: i % 3):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for i in numbers:
            for ending, content in (("png", encoded(i)), ("cls", str(label(i)).encode())):
                member = tarfile.TarInfo(f"{i:05}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def whole(images):
    return next(images.parts([torch.arange(len(images))]))


def numbered(images):
    """Which of the numbers a picture was made of, for each."""
    known = {np.array(Image.open(io.BytesIO(encoded(i)))).tobytes(): i for i in range(60)}
    return [known[pixels.permute(1, 2, 0).numpy().tobytes()] for pixels in whole(images).pixels]


@pytest.mark.parametrize("in_memory", [None, False])
def test_a_folder_of_parquet_files_with_a_split(tmp_path, in_memory):
    write(tmp_path / "p" / "train-00000-of-00002.parquet", rows(10))
    write(tmp_path / "p" / "train-00001-of-00002.parquet", rows(7, start=10))
    write(tmp_path / "p" / "test-00000-of-00001.parquet", rows(4, start=40))
    found = data.load(tmp_path / "p", in_memory=in_memory)
    assert isinstance(found.train, Images if in_memory is None else Files)
    assert found.classes == ("0", "1", "2") and found.shape == (3, 20, 24)
    assert numbered(found.train) == list(range(17)) and numbered(found.test) == [40, 41, 42, 43]
    assert found.train.labels.tolist() == [*(i % 3 for i in range(10)), *(i % 3 for i in range(7))]
    assert found.train.labels.dtype == torch.int64


def test_one_file_is_parted_by_the_number_of_the_row(tmp_path):
    found = data.load(write(tmp_path / "a.parquet", rows(30)))
    train, test = numbered(found.train), numbered(found.test)
    assert sorted(train + test) == list(range(30)) and 1 < len(test) < 12
    assert found.test.labels.tolist() == [i % 3 for i in test]
    longer = data.load(write(tmp_path / "b.parquet", rows(50)))
    assert set(test) <= set(numbered(longer.test)) and set(train) <= set(numbered(longer.train))


def test_features_name_the_classes(tmp_path):
    library = pytest.importorskip("datasets")
    features = library.Features({"photo": library.Image(), "kind": library.ClassLabel(names=["cat", "dog", "owl"])})
    values = {"photo": [{"bytes": encoded(i), "path": None} for i in range(30)], "kind": [i % 2 for i in range(30)]}
    library.Dataset.from_dict(values, features).to_parquet(str(tmp_path / "a.parquet"))
    assert data.load(tmp_path / "a.parquet").classes == ("cat", "dog", "owl")


def test_classes_may_be_words_or_large_numbers(tmp_path):
    words = data.load(write(tmp_path / "a.parquet", rows(20, label=lambda i: ["owl", "cat"][i % 2])))
    assert words.classes == ("cat", "owl")
    numbers = data.load(write(tmp_path / "b.parquet", rows(20, label=lambda i: [10, 9][i % 2])))
    assert numbers.classes == ("9", "10")


@pytest.mark.parametrize("alone", [True, False])
def test_webdataset_shards(tmp_path, alone):
    shard(tmp_path / "w" / "train-000.tar", range(15))
    if not alone:
        shard(tmp_path / "w" / "train-001.tar", range(15, 30))
    found = data.load(tmp_path / "w" / "train-000.tar" if alone else tmp_path / "w", in_memory=False)
    every = numbered(found.train) + numbered(found.test)
    assert sorted(every) == list(range(15 if alone else 30))
    assert found.train.labels.tolist() == [i % 3 for i in numbered(found.train)]


def test_broken_pictures_in_a_table(tmp_path):
    values = rows(20)
    values[1]["image"]["bytes"] = b"nothing"
    path = write(tmp_path / "a.parquet", values)
    with pytest.raises(InputError, match=r"row 1 of train can't be read \(it is no image"):
        data.load(path, size=112)
    found = data.load(path, size=112, skip_corrupt=True)
    assert [name for name, _ in found.skipped] == ["row 1 of train"]


def broken(folder):
    whole = write(folder / "a.parquet", rows(9)).read_bytes()
    (folder / "a.parquet").write_bytes(whole[:400])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (broken, r"a\.parquet can't be read \(.*\): fetch it again"),
        (lambda f: write(f / "a.parquet", rows(9, label=lambda i: 0)), "only 1 class"),
        (
            lambda f: write(f / "a.parquet", [{"text": "a", "label": 1}] * 3),
            r"columns text, label and none of pictures",
        ),
        (lambda f: write(f / "a.parquet", [{"image": encoded(0)}] * 3), r"none of classes: name it 'label'"),
        (lambda f: write(f / "a.parquet", rows(2)), "too few to learn all classes"),
        (lambda f: write(f / "a.parquet", rows(9, label=lambda i: i % 2 or None)), "without a class"),
        (lambda f: write(f / "p" / "test-0.parquet", rows(9)), "has the parts test: expected was train"),
    ],
)
def test_tables_that_are_no_data(make, says, tmp_path):
    make(tmp_path)
    path = tmp_path / "a.parquet"
    with pytest.raises(InputError, match=says) as caught:
        data.load(path if path.exists() else tmp_path / "p")
    assert str(caught.value).count("\n") == 0


def test_without_a_connection_it_says_so_at_once(monkeypatch):
    def urlopen(*args, **options):
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(tables, "urlopen", urlopen)
    with pytest.raises(InputError, match=r"no file 'owner/name', and the Hugging Face hub .*not known.*connection"):
        data.load("owner/name")
    with pytest.raises(InputError, match="There is no data 'nothing'"):
        data.load("nothing")


# --- streaming


@pytest.fixture
def shards(tmp_path):
    for part, count in {"train": 4, "test": 1}.items():
        for i in range(count):
            numbers = range(10 * i, 10 * i + 10) if part == "train" else range(50, 57)
            shard(tmp_path / "w" / f"{part}-{i:03}.tar", numbers)
    return data.load(tmp_path / "w", size=(20, 24), streaming=True)


def test_a_stream_comes_whole_and_in_its_own_order(shards):
    assert isinstance(shards.train, Stream) and (len(shards.train), len(shards.test)) == (40, 7)
    assert numbered(shards.train) == list(range(40)) and numbered(shards.test) == list(range(50, 57))
    assert whole(shards.train).labels.tolist() == [i % 3 for i in range(40)]
    with pytest.raises(InputError, match="load it without streaming"):
        shards.holdout(0.2)


def test_a_stream_is_shuffled_by_its_seed(shards):
    orders = [numbered(shards.train.shuffled(seed)) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2] != list(range(40))
    assert all(sorted(order) == list(range(40)) for order in orders)


def test_batches_of_a_stream_obey_the_laws_of_batches(shards):
    recipe, device = Recipe(batch_size=9, shift=1, crop=0.5), torch.device("cpu")
    every = list(batches(shards.train, recipe, 1, 2, device))
    assert [len(labels) for _, labels in every] == [8] * 5
    for workers in (0, 3):
        again = list(batches(shards.train, recipe, 1, 2, device, workers=workers, start_step=2))
        for (pixels, labels), (other, others) in zip(again, every[2:], strict=True):
            assert torch.equal(pixels, other) and torch.equal(labels, others)
    sides = [batches(shards.train, recipe, 1, 2, device, process_index=i, num_processes=2) for i in range(2)]
    for (pixels, labels), *both in zip(every, *sides, strict=True):
        assert torch.equal(pixels, torch.cat([p for p, _ in both]))
        assert torch.equal(labels, torch.cat([each for _, each in both]))


def test_only_some_of_a_stream_is_held(shards, monkeypatch):
    held = []
    original = stream._Held.__getitem__
    monkeypatch.setattr(
        stream._Held, "__getitem__", lambda self, at: (held.append(len(self.content)), original(self, at))[1]
    )
    list(shards.train.parts(torch.arange(40).split(2), workers=2))
    assert max(held) <= 8


def test_a_broken_picture_in_a_stream_is_replaced_from_its_part(tmp_path):
    values = rows(10)
    values[4]["image"]["bytes"] = b""
    write(tmp_path / "p" / "train-0.parquet", values)
    write(tmp_path / "p" / "test-0.parquet", rows(3, start=40))
    found = data.load(tmp_path / "p", size=(20, 24), streaming=True, skip_corrupt=True)
    part = list(found.train.parts(torch.arange(10).split(5), replaced=True))
    assert part[0].labels.tolist() == [0, 1, 2, 0, 0] and len(found.skipped) == 1
    with pytest.raises(InputError, match=r"the picture of sha256 e3b0c44298fc1c14 can't be read"):
        data.load(tmp_path / "p", size=(20, 24), streaming=True)


def test_what_cannot_be_streamed(tmp_path):
    with pytest.raises(InputError, match="can't be streamed"):
        data.load(tmp_path, streaming=True)
    with pytest.raises(InputError, match="has no test part"):
        data.load(write(tmp_path / "a.parquet", rows(9)), streaming=True)
