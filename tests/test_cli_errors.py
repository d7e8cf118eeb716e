"""Bad input: one sentence on stderr, exit code 2, no traceback, nothing on stdout, nothing written."""

import json
import os
import shutil
import stat

import pytest
import torch
from PIL import Image

from convlite import models
from convlite.cli import main
from convlite.errors import InputError, RunError, need
from convlite.models.saved import save

TINY = """
from torch import nn

def net():
    return 3

def tiny():
    layers = nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    return nn.Sequential(*layers)
"""
ABOUT = {"classes": ["a", "b"], "preprocess": {"size": [8, 8], "channels": 3, "mean": [0.5] * 3, "std": [1.0] * 3}}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with some good and many bad things."""
    place = tmp_path_factory.mktemp("place")
    torch.manual_seed(0)
    two, three = (models.create("resnet20", num_classes=n) for n in (2, 3))
    for folder in ("saved", "short", "nojson", "format", "noweights"):
        save(two, place / folder)
    save(three, place / "three")
    save(two, place / "wrong")
    save(two, place / "ready", ABOUT)
    shutil.copy(place / "three" / "model.safetensors", place / "wrong")
    weights = place / "short" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    (place / "nojson" / "config.json").write_text('{"format": 1, "cre')
    (place / "format" / "config.json").write_text('{"format": 99}')
    (place / "noweights" / "model.safetensors").unlink()
    (place / "empty").mkdir()
    for data in ("good", "corrupt", "half"):
        for name in ("cats", "dogs"):
            (place / data / name).mkdir(parents=True)
            for i in range(0 if (data, name) == ("half", "dogs") else 8):
                Image.new("RGB", (8, 8), (i, 20, 30)).save(place / data / name / f"{i}.png")
    picture = place / "corrupt" / "cats" / "3.png"
    picture.write_bytes(picture.read_bytes()[:30])
    (place / "corrupt" / "dogs" / "5.png").write_text("no picture")
    (place / "taken").write_text("a file")
    (place / "code.py").write_text(TINY)
    return place


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


def said(arguments, capsys, code=2):
    capsys.readouterr()
    assert main(arguments) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = [line for line in printed.err.splitlines() if line.startswith("convlite: ")]
    assert lines == printed.err.splitlines()[-1:], printed.err
    assert "Traceback" not in printed.err
    sentence = lines[0]
    assert len(sentence) < 600
    assert sentence[-1] in ".?"
    return sentence


BAD = [
    ("cost xceptoin", "did you mean xception"),
    ("cost nothing-like-it", "convlite models"),
    ("cost missing.py:net", "There is no file missing.py"),
    ("cost code.py:nett", "did you mean net"),
    ("cost code.py:net", "gives a int"),
    ("cost empty", "config.json"),
    ("cost short", "safetensors"),
    ("cost wrong", "fit"),
    ("cost nojson", "JSON"),
    ("cost format", "format 1"),
    ("cost noweights", "model.safetensors"),
    ("cost saved --conv separable", "leave it out"),
    ("cost xception --conv separabel", "did you mean separable"),
    ("cost xception --conv grouped(0)", "at least 1"),
    ("cost xception --input 224", "3x224x224"),
    ("cost xception --input 3x0x224", "3x224x224"),
    ("cost resnet20 --by speed", "--by takes"),
    ("cost resnet20 --top 0", "convlite cost --help"),
    ("cost", "convlite cost --help"),
    ("cost resnet20 --jsn", "--json"),
    ("costs", "convlite --help"),
    ("compare --in 0 --out 8", "convlite compare --help"),
    ("compare --in 8 --out 8 --kernel x", "convlite compare --help"),
    ("compare --in 8 --out 8 --size 3 --kernel 3 --stride -1", "convlite compare --help"),
    ("lighten saved --macs 0 --data good --out new", "(0, 1]"),
    ("lighten saved --macs 1.5 --data good --out new", "(0, 1]"),
    ("lighten saved --macs nan --data good --out new", "(0, 1]"),
    ("lighten saved --data good --out new", "(0, 1]"),
    ("lighten code.py:tiny --macs 0.001 --data good --out new", "the least"),
    ("lighten saved --macs 0.5 --data good --out saved", "give another"),
    ("lighten saved --macs 0.5 --data good", "--out"),
    ("lighten saved --macs 0.5 --frontier --data good --out new", "many budgets"),
    ("lighten saved --macs 0.5 --labels --data good --out new", "--distil the epochs"),
    ("lighten saved --frontier --distil 2 --data good --out new", "--distil out"),
    ("lighten saved --macs 0.5 --probes 9 --data good --out new", "not 9"),
    ("lighten saved --latency-ms 5 --probes 1 --data good --out new", "leave the probes out"),
    ("lighten saved --latency-ms -1 --data good --out new", "above 0"),
    ("lighten saved --latency-ms 5 --engine fast --data good --out new", "no engine"),
    ("lighten nothing --macs 0.5 --data good --out new", "There is no model"),
    ("train --model resnet20 --data empty --out new", "empty"),
    ("train --model resnet20 --data half --out new", "dogs"),
    ("train --model resnet20 --data corrupt --out new", ".png"),
    ("train --model resnet20 --data missing --out new", "missing"),
    ("train --model resnet20 --data taken --out new", "taken"),
    ("train --model resnet20 --data good --out taken/new", "taken"),
    ("train --model resnet20 --data good --out new --epochs 0", "convlite train --help"),
    ("train --model resnet20 --data good --out new --set width", "OPTION=VALUE"),
    ("train --model resnet20 --data good --out new --set width=2", "takes no option 'width'"),
    ("train --model resnet18 --data good --out new --set width=wide", "give a value like 1.0"),
    ("train --model code.py:net --data good --out new --set width=2", "--set is for the families"),
    ("train --model resnet20 --data good --out new --pretrained no.pth", "There is no file"),
    ("predict resnet20 good/cats/1.png --pretrained notes.txt", "ends in one of"),
    ("train --model resnet20 --data good --out new --recipe cifer", "did you mean cifar"),
    ("train --model resnet20 --data good --out new --conv lowrnk", "did you mean lowrank"),
    ("train --model resnet20 --data good --out new --device tpu9", "tpu9"),
    ("evaluate three --data good", "classes"),
    ("evaluate saved --data good --device nope", "nope"),
    ("predict saved good/cats/1.png", "does not say how it takes pictures"),
    ("predict saved", "convlite predict --help"),
    ("predict ready good/cats --engine onnxrutime", "did you mean onnxruntime"),
    ("predict ready good/cats --overlay new", "names whole pictures"),
    ("predict ready good/cats --json --jsonl -", "give --jsonl a file"),
    ("predict ready good/cats --jsonl missing/a.jsonl", "Can't write missing/a.jsonl"),
    ("predict ready good/cats --classes code.py", "are named"),
    ("predict nothing.onnx good/cats", "no exported network"),
    ("serve saved", "does not say how it takes pictures"),
    ("serve ready --port 99999", "convlite serve --help"),
    ("serve ready --limit bodi=3", "did you mean body"),
    ("serve ready --limit body=x", "is a number"),
    ("serve ready --limit body=0", "above zero"),
    ("serve ready --host 203.0.113.1", "choose others"),
]


@pytest.mark.parametrize(("line", "words"), BAD, ids=[line for line, _ in BAD])
def test_bad_input_is_one_sentence_and_exit_code_2(line, words, here, capsys):
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*") if path.is_file()}
    assert words in said(line.split(), capsys)
    after = {path: path.stat().st_mtime_ns for path in here.rglob("*") if path.is_file()}
    assert after == before, "something was written"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_can_t_be_written_to(here, capsys):
    (here / "locked").mkdir()
    (here / "locked").chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert "locked" in said(["train", "--model", "resnet20", "--data", "good", "--out", "locked/new"], capsys)


def test_groups_that_don_t_divide_are_named(here, capsys):
    """In a whole network the published kind stays there; for one layer it is said."""
    assert main(["compare", "--in", "8", "--out", "9", "--groups", "4", "--rounds", "0"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "4 groups don't divide 8 channels in and 9 out" in text


def test_prediction_goes_past_what_it_can_t_read_and_names_it(here, capsys):
    assert main(["predict", "ready", "corrupt/cats", "--json"]) == 0
    printed = capsys.readouterr()
    assert "1 of 8 files can't be read: corrupt/cats/3.png (" in printed.err
    assert [one["file"] for one in json.loads(printed.out)["predictions"] if one["why_not"]] == [
        "corrupt/cats/3.png"
    ]
    assert "3.png" in said(["predict", "ready", "corrupt/cats/3.png", "code.py"], capsys)
    assert "nowhere" in said(["predict", "ready", "nowhere/*.png"], capsys)


def test_other_classes_than_the_network_was_trained_on(here, capsys):
    about = {
        "classes": ["a", "b"],
        "preprocess": {"size": [8, 8], "channels": 3, "mean": [0.5] * 3, "std": [1.0] * 3},
    }
    save(models.create("resnet20", num_classes=2), "ready", about)
    assert "cats, dogs" in said(["evaluate", "ready", "--data", "good"], capsys)


def test_a_failed_run_is_exit_code_1(here, capsys, monkeypatch):
    def fails(*args, **kwargs):
        raise RunError("The loss became nan in step 3: try a lower rate.")

    monkeypatch.setattr("convlite.cli.training.fit", fails)
    assert "nan" in said(["train", "--model", "resnet20", "--data", "good", "--out", "new"], capsys, code=1)


def test_stopping_is_exit_code_130(here, capsys, monkeypatch):
    def stops(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("convlite.cli.training.fit", stops)
    assert "Stopped" in said(["train", "--model", "resnet20", "--data", "good", "--out", "new"], capsys, code=130)


@pytest.mark.parametrize("error", ["ImportError('no libm.so')", "RuntimeError('no ops.nms')", "OSError()"])
def test_an_installed_package_that_does_not_load_is_named(error, tmp_path, monkeypatch):
    (tmp_path / "broken_here.py").write_text(f"raise {error}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"broken_here, which is installed and does not load .*ship"):
        need("broken_here", "ship")
    with pytest.raises(InputError, match="'missing_here', which is not installed"):
        need("missing_here", "ship")
