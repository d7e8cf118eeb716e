"""The verb cost: everything it shows, its files, and what it refuses."""

import csv
import io
import json
import sys

import pytest
import torch
from torch import nn

import convlite
from convlite.analyse import analyse, peak_memory, priced
from convlite.cli import main
from convlite.kinds import Separable
from convlite.models.saved import save

CODE = """
import torch
from torch import nn

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(6, 4), nn.Conv2d(3, 4, 1)
    def forward(self, vector, image):
        return self.left(vector)[..., None, None] + self.right(image)

class Entry(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
    def forward(self, batch):
        return self.conv(batch["image"])

class Words(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Embedding(9, 4), nn.Linear(4, 2))

class Bad(nn.Module):
    def forward(self, x):
        raise KeyError("nothing there")

class Raises(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.bad = nn.Conv2d(3, 4, 3), Bad()
    def forward(self, x):
        return self.bad(self.stem(x))

class Looks(nn.Module):
    def forward(self, x):
        return x if x.mean() > 0 else -x

class NormsOnePixel(nn.Sequential):
    def __init__(self):
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3))

class NeedsData(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
    def forward(self, x):
        if not x.is_meta:
            raise ValueError("real data")
        return self.conv(x)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    (place / "code.py").write_text(CODE)
    torch.manual_seed(0)
    save(convlite.create("resnet20", conv=Separable(), num_classes=2), place / "light")
    dense = {**analyse(convlite.create("resnet20"), (3, 32, 32)).to_dict(), "model": "dense"}
    (place / "dense.json").write_text(json.dumps(dense))
    (place / "spoilt.json").write_text(json.dumps({**dense, "rows": None}))
    (place / "cut.json").write_text(json.dumps(dense)[:1000])
    (place / "text.onnx").write_text("no graph")
    (place / "empty.onnx").write_text("")
    return place


@pytest.fixture
def here(place, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, size in (("_MULTIPLIED", 32), ("_CONVOLVED", 4), ("_SMALL", 1 << 8), ("_LARGE", 1 << 10)):
        monkeypatch.setattr(sys.modules["convlite.analyse.roofline"], name, size)
    return place


@pytest.fixture
def read(here, capsys):
    def asked(line):
        capsys.readouterr()
        assert main(["cost", *line.split()]) == 0
        return capsys.readouterr().out

    return asked


@pytest.fixture
def ask(read):
    def asked(line):
        printed = read(f"{line} --json")
        assert printed.count("\n") == 1
        return json.loads(printed)

    return asked


def test_measuring_adds_times_memory_and_the_roof(ask, read):
    answer = ask("resnet20 --measure --rounds 2 --threads 1")
    assert {row["path"] for row in answer["rows"] if row["macs"]} <= set(answer["times"]["layers"])
    assert answer["times"]["bare"]["runs"] == 2
    assert answer["times"]["machine"]["threads"] == 1
    memory = peak_memory(convlite.create("resnet20"), (3, 32, 32))
    assert answer["memory"] == memory.to_dict()
    assert {one["limit"] for one in answer["roofline"]} <= {"compute", "memory"}
    text = read("resnet20 --measure --rounds 1 --by ms --top 3")
    for said in ("of best", "unattributed", "peak memory of a training step", "the best here"):
        assert said in text


def test_the_machine_is_recorded_as_it_was_asked_to_be(ask):
    line = "resnet20 --measure --rounds 1 --dtype bfloat16 --layout channels_last --device cpu --batch 2"
    answer = ask(line)
    here = answer["times"]["machine"]
    assert (here["dtype"], here["device"], answer["times"]["layout"]) == ("bfloat16", "cpu", "channels_last")
    assert answer["input"][0] == {"name": "0", "shape": [2, 3, 32, 32], "dtype": "bfloat16"}
    assert answer["macs"] == 2 * 40_551_040


def test_as_prices_what_the_network_then_costs(ask, read):
    price = ask("resnet20 --as separable")["as"]
    built = ask("resnet20 --conv separable")
    first = ask("resnet20")["rows"][0]
    assert price == priced(analyse(convlite.create("resnet20"), (3, 32, 32)), Separable()).to_dict()
    assert first["path"] in price["replaced"]
    assert price["macs"] <= built["macs"]  # a family keeps its stem as published
    assert "Replaced: 19 convolutions." in read("resnet20 --as separable")


@pytest.mark.parametrize("measured", ["", " --measure --rounds 1"])
def test_what_if_holds_every_kind_for_every_layer(ask, read, measured):
    found = ask(f"resnet20 --what-if --top 2{measured}")["what_if"]
    assert sum(len(one["paths"]) for one in found) == 2
    for one in found:
        kinds = {kind["kind"]: kind for kind in one["kinds"]}
        for kind in kinds.values():
            assert kind["ratios"]["macs"] == kind["macs"] / kinds["normal"]["macs"]
            assert kind["ratios"]["bytes"] == kind["bytes"] / kinds["normal"]["bytes"]
            assert set(kind["ms"]) == ({"contiguous", "channels_last"} if measured else set())
    assert "separable" in read("resnet20 --what-if --top 1")


def test_files_hold_the_same_rows_in_every_form(ask, read, tmp_path):
    answer = ask(f"resnet20 --csv {tmp_path / 'a.csv'} --markdown {tmp_path / 'a.md'} --html {tmp_path / 'a.html'}")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert [row["path"] for row in rows] == [row["path"] for row in answer["rows"]]
    assert [int(row["bytes"]) for row in rows] == [row["bytes"] for row in answer["rows"]]
    assert (tmp_path / "a.md").read_text().count("\n|") == len(rows) + 2
    assert (tmp_path / "a.html").read_text().count("<tr>") == len(rows) + 1
    assert f"Written to {tmp_path / 'b.csv'}." in read(f"resnet20 --csv {tmp_path / 'b.csv'}")
    assert (tmp_path / "b.csv").read_text() == (tmp_path / "a.csv").read_text() == read("resnet20 --csv -")


def test_rows_are_sorted_and_cut_in_files_too(read):
    rows = list(csv.DictReader(io.StringIO(read("resnet20 --by other_ops --top 5 --csv -"))))
    counts = [int(row["other_ops"]) for row in rows]
    assert len(counts) == 5
    assert counts == sorted(counts, reverse=True)
    kinds = list(csv.DictReader(io.StringIO(read("resnet20 --what-if --top 1 --csv -"))))
    assert kinds[0]["kind"] == "normal"
    assert float(kinds[0]["macs_ratio"]) == 1


def test_a_saved_report_is_a_model(ask, read):
    saved = ask("dense.json")
    assert (saved["model"], saved["macs"]) == ("dense", 40_551_040)
    assert ask("dense.json --as separable")["as"] == ask("resnet20 --as separable")["as"]
    assert "block1" in read("dense.json --depth 2")


def test_the_difference_of_two_models_and_of_saved_reports(ask, read):
    found = ask("dense.json --diff light")
    assert found["models"] == ["dense", "light"]
    assert found["totals"]["macs"] == [40_551_040, ask("light")["macs"]]
    assert ask("resnet20 --diff dense.json")["changes"] == []
    assert len(ask("dense.json --diff light --top 2 --by params")["changes"]) == 2
    assert "Conv2d → SeparableConv2d" in read("dense.json --diff light")


def test_several_inputs_by_order_name_and_entry(ask):
    for given in ("--input 6 --input 3x5x5", "--input image=3x5x5 --input vector=6"):
        assert ask(f"code.py:Two {given}")["macs"] == 24 + 12 * 25
    assert ask("code.py:Entry --input batch.image=3x5x5 --memory")["macs"] == 12 * 25
    assert ask("code.py:Words --input 7:int64")["macs"] == 7 * 8


def test_what_can_t_train_on_one_image_says_so(read, ask):
    memory = ask("code.py:NormsOnePixel --input 3x4x4 --memory")["memory"]
    assert memory["training"] is None
    assert "no training step: The forward of BatchNorm2d" in read("code.py:NormsOnePixel --input 3x4x4 --memory")
    assert ask("code.py:NormsOnePixel --input 3x4x4 --memory --batch 2")["memory"]["training"]


def test_an_onnx_file_is_a_model(ask, tmp_path):
    onnx = pytest.importorskip("onnx")
    weight = onnx.numpy_helper.from_array(torch.rand(8, 3, 3, 3).numpy(), "conv.weight")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "conv.weight"], ["y"], "conv")],
        "tiny", [value("x", 1, ["n", 3, 8, 8])], [value("y", 1, None)], [weight],
    )  # fmt: skip
    onnx.save(onnx.helper.make_model(graph), tmp_path / "a.onnx")
    answer = ask(f"{tmp_path / 'a.onnx'} --batch 2 --as separable")
    assert (answer["macs"], answer["params"]) == (2 * 216 * 36, 216)
    assert answer["as"]["replaced"] == ["conv"]
    real = analyse(nn.Conv2d(3, 8, 3, bias=False), torch.rand(2, 3, 8, 8))
    assert answer["rows"][0]["bytes"] == real.rows[0].bytes


BAD = [
    ("code.py:Raises --input 3x8x8", "Bad 'bad' failed on an input of 1×3×8×8 (KeyError: 'nothing there')"),
    ("code.py:Raises --input 1x8x8", "It takes (batch, 3, height, width)"),
    ("code.py:Two --input 6", "several --input"),
    ("code.py:Two --input 6 --input image=3x5x5", "has a name of its own"),
    ("code.py:Entry --input image=3x5x5", "Give it each of its inputs"),
    ("code.py:Words --input 7", "whole numbers"),
    ("code.py:Looks --input 3x8x8", "depends on the data"),
    ("code.py:Looks", "--input 3x224x224"),
    ("code.py:NeedsData --input 3x5x5 --measure --rounds 1", "ValueError: real data"),
    ("code.py:Two --input 6:floot32", "did you mean float32"),
    ("resnet20 --input 10", "one image"),
    ("resnet20 --input 3x32x32 --input 5", "one image"),
    ("resnet20 --batch 0", "convlite cost --help"),
    ("resnet20 --dtype int64", "floating point"),
    ("resnet20 --by speed", "--by takes"),
    ("resnet20 --by ms", "--measure"),
    ("resnet20 --as separabel", "did you mean separable"),
    ("resnet20 --depth 1 --top 3", "leave --top out"),
    ("resnet20 --what-if --depth 1", "leave --depth out"),
    ("resnet20 --what-if --by bytes", "leave --by out"),
    ("resnet20 --set width=x", "width"),
    ("resnet20 --json --csv -", "Standard output takes one answer"),
    ("resnet20 --html - --csv -", "Standard output takes one answer"),
    ("resnet20 --diff light --csv a.csv --as separable", "leave --as, --csv out"),
    ("resnet20 --threads 2", "add --measure"),
    ("resnet20 --measure --layout nhwc", "contiguous or channels_last"),
    ("resnet20 --measure --device tpu9", "tpu9"),
    ("resnet20 --csv code.py/a.csv", "Can't write"),
    ("dense.json --measure", "leave --measure out"),
    ("dense.json --diff dense.json --dtype float16", "leave --dtype out"),
    ("resnet20 --diff nothing", "There is no model 'nothing'"),
    ("spoilt.json", "no report of what a model costs"),
    ("cut.json", "no valid JSON"),
    ("nowhere.json", "Can't read nowhere.json"),
    ("nowhere.onnx", "Can't read nowhere.onnx"),
    ("text.onnx", "ONNX"),
    ("empty.onnx", "holds no ONNX graph"),
    ("text.onnx --measure", "leave --measure out"),
]


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
@pytest.mark.parametrize(("line", "words"), BAD, ids=[line for line, _ in BAD])
def test_bad_input_is_one_sentence_and_exit_code_2(line, words, here, capsys):
    assert main(["cost", *line.split()]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (sentence,) = printed.err.splitlines()
    assert sentence.startswith("convlite: ")
    assert sentence[-1] in ".?"
    assert len(sentence) < 600
    assert words in sentence
    assert not (here / "a.csv").exists()
