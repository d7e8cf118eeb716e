"""The verbs that put a network to use: what goes in, and what comes out as tables, lines and pictures."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convlite import create
from convlite.cli import main
from convlite.models.saved import save
from convlite.report.colours import palette

HOW = {"size": [32, 32], "channels": 3, "mean": [0.5] * 3, "std": [0.3] * 3}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two networks and some pictures, one of them broken."""
    place = tmp_path_factory.mktemp("use")
    torch.manual_seed(0)
    save(
        create("xception_small", num_classes=3, width=0.25, depth=1),
        place / "net",
        {"classes": list("abc"), "preprocess": HOW},
    )
    dense = create("resnet20", num_classes=3, head="deeplabv3plus")
    save(dense, place / "dense", {"classes": ["sky", "road", "car"], "preprocess": HOW})
    for i, name in enumerate(["1.jpg", "2.png", "sub/1.png"]):
        (place / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((40 + 9 * i, 40), 90).convert("RGB").save(place / "in" / name)
    (place / "in" / "3.png").write_bytes(b"no picture")
    return place


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    monkeypatch.chdir(place)


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_a_picture(capsys, monkeypatch):
    assert main(["predict", "net", "in", "--json", "--jsonl", "a.jsonl"]) == 0
    printed = capsys.readouterr()
    expected = json.loads(printed.out)["predictions"]
    assert lines(Path("a.jsonl").read_text()) == expected
    assert [one["file"] for one in expected] == ["in/1.jpg", "in/2.png", "in/3.png", "in/sub/1.png"]
    assert "torch-channels-last, fp32" in printed.err and "1 of 4 files can't be read: in/3.png (" in printed.err
    for end in ("\n", "\0"):
        monkeypatch.setattr("sys.stdin", io.StringIO(end.join(one["file"] for one in expected) + end))
        assert main(["predict", "net", "-", "--jsonl", "-"]) == 0
        assert lines(capsys.readouterr().out) == expected


def test_a_list_on_stdin_may_name_files_that_are_not_there(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("in/gone.jpg\nin/1.jpg\n"))
    assert main(["predict", "net", "-", "--json"]) == 0
    printed = capsys.readouterr()
    gone, there = json.loads(printed.out)["predictions"]
    assert "No such file" in gone["why_not"] and there["why_not"] is None and "gone.jpg" in printed.err
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["predict", "net", "-"]) == 2


def test_ctrl_c_leaves_whole_lines(capsys, monkeypatch):
    from convlite.cli import use

    real = use.answers

    def stopped(*args, **kwargs):
        for i, one in enumerate(real(*args, **kwargs)):
            if i == 2:
                raise KeyboardInterrupt
            yield one

    monkeypatch.setattr(use, "answers", stopped)
    assert main(["predict", "net", "in", "--jsonl", "b.jsonl"]) == 130
    assert "2 of 4 pictures are answered" in capsys.readouterr().err
    assert [one["file"] for one in lines(Path("b.jsonl").read_text())] == ["in/1.jpg", "in/2.png"]


def test_an_exported_file_answers_as_the_network_it_came_from(place, capsys):
    assert main(["export", "net", "--out", "net.pt2"]) == 0
    capsys.readouterr()
    answers = []
    for model in ("net", "net.pt2"):
        assert main(["predict", model, "in/1.jpg", "--json", "--threads", "1"]) == 0
        (one,) = json.loads(capsys.readouterr().out)["predictions"]
        answers.append([(each["name"], pytest.approx(each["probability"], abs=1e-5)) for each in one["classes"]])
    assert answers[0] == answers[1]


def test_labels_are_drawn_over_their_pictures(place, capsys):
    assert main(["predict", "dense", "in", "--overlay", "out", "--json"]) == 0
    said = {one["file"]: one for one in json.loads(capsys.readouterr().out)["predictions"]}
    names = {str(path.relative_to(place / "out")) for path in (place / "out").rglob("*.png")}
    read = ("1.jpg", "2.png", "sub/1.png")
    assert names == {f"{name}.{end}.png" for name in read for end in ("overlay", "mask")}
    for name in read:
        picture, over, mask = (
            Image.open(path) for path in (f"in/{name}", f"out/{name}.overlay.png", f"out/{name}.mask.png")
        )
        assert picture.size == over.size == mask.size and mask.mode == "P"
        classes = np.asarray(mask)
        assert classes.max() < 3
        coloured = np.array(palette(3))[classes]
        assert (np.asarray(mask.convert("RGB")) == coloured).all()
        assert np.abs((np.asarray(picture.convert("RGB")) + coloured) / 2 - np.asarray(over)).max() <= 1
        best = said[f"in/{name}"]["classes"][0]
        assert best["share"] == pytest.approx((classes == ["sky", "road", "car"].index(best["name"])).mean())
    assert main(["predict", "dense", "in", "--overlay", "out"]) == 0
    text = capsys.readouterr().out
    assert "share of pixels" in text and "of all pixels" in text and "road" in text


def test_colours_are_far_apart_and_stay():
    assert palette(5) == palette(300)[:5] and len(palette(300)) == 300
    few = np.array(palette(21), float)
    apart = np.abs(few[:, None] - few[None]).max(-1)[~np.eye(21, dtype=bool)]
    assert apart.min() >= 51
