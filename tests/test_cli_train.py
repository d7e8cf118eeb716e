"""`convlite train` and `evaluate`: what they write, and how a run is stopped, resumed and begun from another."""

import json
import os
import re
import shlex
import signal
import sys
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from convlite import data as datasets
from convlite.cli import main
from convlite.models import create, saved
from convlite.models.saved import load
from convlite.train import checkpoint, evaluate
from convlite.train.run import Run

TINY = ["--model", "xception_small", "--set", "width=0.25", "--set", "depth=1"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three classes of 12 pictures each, told apart by their colour."""
    folder = tmp_path_factory.mktemp("pictures")
    torch.manual_seed(0)
    for i, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir()
        for k in range(12):
            pixels = torch.randn(16, 16, 3) * 25 + 90
            pixels[..., i] += 90
            Image.fromarray(pixels.clamp(0, 255).to(torch.uint8).numpy()).save(folder / name / f"{k}.png")
    return folder


@pytest.fixture
def ask(capsys):
    def asked(*arguments):
        capsys.readouterr()
        assert main([*map(str, arguments), "--json"]) == 0
        out, asked.err = capsys.readouterr()
        return json.loads(out)

    return asked


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a"
    assert main(["train", *TINY, "--data", str(pictures), "--epochs", "2", "--out", str(folder), "--json"]) == 0
    return folder


def test_what_a_run_leaves(run, ask, pictures):
    assert {path.name for path in run.iterdir()} == {
        "best", "checkpoints", "config.json", "history.png", "metrics.jsonl", "model.safetensors"
    }  # fmt: skip
    with Image.open(run / "history.png") as picture:
        assert picture.size == (960, 380)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["number"] for line in lines] == [1, 2] and lines[1]["test_accuracy"] is not None
    best = ask("evaluate", run / "best", "--data", pictures)
    assert best["accuracy"] == max(line["test_accuracy"] for line in lines)


def test_settings_are_chosen_on_pictures_held_out_of_the_training_part(ask, pictures, tmp_path, capsys):
    arguments = ["train", *TINY, "--data", pictures, "--epochs", 1, "--out", tmp_path / "a"]
    answer = ask(*arguments, "--hold-out", 0.25)
    parts = datasets.load(pictures).holdout(0.25)
    assert answer["count"] == len(parts.test) == 7
    assert evaluate(load(tmp_path / "a"), parts.test, parts, progress=False).top1 == answer["accuracy"]
    assert saved.read_config(tmp_path / "a")["about"]["training"]["held_out"] == [[0.25, 0]]
    assert main([*map(str, arguments), "--resume"]) == 2
    assert "is another" in capsys.readouterr().err


def test_the_confusion_is_drawn_and_told(run, ask, pictures, tmp_path):
    answer = ask("evaluate", run, "--data", pictures, "--confusion", tmp_path / "new" / "c.png")
    with Image.open(tmp_path / "new" / "c.png") as picture:
        assert picture.format == "PNG"
    assert sum(map(sum, answer["confusion"])) == answer["count"]
    assert sum(answer["confusion"][i][i] for i in range(3)) == answer["correct"]
    assert 0 <= answer["score"]["calibration_error"] <= 1


def test_a_stopped_run_says_the_command_that_goes_on_and_it_does(pictures, tmp_path, capsys, monkeypatch):
    arguments = [
        "train",
        *TINY,
        "--data",
        str(pictures),
        "--epochs",
        "3",
        "--with",
        "batch_size=9",
        "--json",
        "--out",
    ]
    assert main([*arguments, str(tmp_path / "whole")]) == 0
    steps = []

    def step(self, *arguments, own=Run._step):
        steps.append(1)
        if len(steps) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return own(self, *arguments)

    monkeypatch.setattr(Run, "_step", step)
    capsys.readouterr()
    assert main([*arguments, str(tmp_path / "two words")]) == 130
    out, err = capsys.readouterr()
    assert out == ""
    last = err.splitlines()[-1]
    said = re.fullmatch(r"convlite: Stopped before the end; the command convlite (.*) goes on\.", last)
    assert main(shlex.split(said[1])) == 0
    assert "--resume" in said[1] and "resumed from" in capsys.readouterr().err
    whole, again = (load(tmp_path / name).state_dict() for name in ("whole", "two words"))
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_transfer_takes_the_weights_and_not_the_classes(run, ask, pictures, tmp_path):
    two = tmp_path / "two"
    two.mkdir()
    for name in ("red", "blue"):
        (two / name).symlink_to(pictures / name)
    arguments = ["--from", run, "--data", two, "--freeze", "entry", "--epochs", 1, "--out", tmp_path / "b"]
    answer = ask("train", *arguments)
    assert answer["recipe"]["layer_decay"] < 1, "the recipe is finetune"
    before, after = load(run), load(tmp_path / "b")
    assert after(torch.zeros(1, 3, 16, 16)).shape == (1, 2)
    frozen, trained = before.entry.state_dict(), before.exit.state_dict()
    assert all(torch.equal(value, after.entry.state_dict()[name]) for name, value in frozen.items())
    assert not all(torch.equal(value, after.exit.state_dict()[name]) for name, value in trained.items())
    config = saved.read_config(tmp_path / "b")["about"]
    assert config["classes"] == ["blue", "red"]
    assert config["preprocess"] == saved.read_config(run)["about"]["preprocess"]
    ask("train", "--from", run, "--data", pictures, "--epochs", 1, "--out", tmp_path / "c", "--with", "rate=1e-9")
    torch.testing.assert_close(load(tmp_path / "c").head.classifier.weight, before.head.classifier.weight)


def test_recipes_and_what_is_changed_in_them(ask, pictures, tmp_path):
    arguments = ["train", *TINY, "--data", pictures, "--out", tmp_path / "a"]
    changes = ["--recipe", "modern", "--epochs", 1, "--with", "rate=0.001", "--with", "optimiser=rmsprop"]
    answer = ask(*arguments, *changes, "--batch-size", 64, "--scale-rate")
    how = answer["recipe"]
    assert (how["epochs"], how["optimiser"], how["batch_size"], how["weight_decay"]) == (1, "rmsprop", 64, 0.05)
    assert how["rate"] == 0.00025
    assert "batch: 64 images a step in place of 256; the rate in proportion, 0.00025 for 0.001" in ask.err
    found = ask(*arguments[:-1], tmp_path / "b", "--epochs", 1, "--find-batch-size")
    assert found["recipe"]["batch_size"] == 16  # of some thirty pictures


def test_tensorboard_gets_every_epoch(ask, pictures, tmp_path, monkeypatch):
    """With a stand-in, whose own import takes seconds."""

    class Writer:
        def __init__(self, folder):
            written.append(folder)

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def flush(self):
            pass

        close = flush

    written = []
    monkeypatch.setitem(sys.modules, "tensorboard", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    out = tmp_path / "a"
    answer = ask("train", *TINY, "--data", pictures, "--epochs", 2, "--out", out, "--tensorboard")
    assert written[0] == out / "tensorboard"
    last = answer["history"]["epochs"][1]
    assert ("loss", last["loss"], 2) in written and ("test_accuracy", last["test_accuracy"], 2) in written


REFUSED = {
    "": "Give what to train: --model",
    "--model resnet20 --from RUN": "Give what to train",
    "--from resnet20": "--from resnet20 is no folder",
    "--model resnet20 --freeze stam": "no flow or step 'stam'",
    "--model resnet20 --precision fp8": "no precision 'fp8'",
    "--model resnet20 --recipe modren": "did you mean modern",
    "--model resnet20 --hold-out 1": "between 0 and 1",
    "--model resnet20 --with rat=1": "did you mean rate",
    "--model resnet20 --with rate": "--with takes OPTION=VALUE, as rate=0.1",
    "--model resnet20 --with rate=high": "rate is of type float",
    "--from RUN --resume --out RUN --seed 4": "The run in RUN is another",
}


@pytest.mark.parametrize("given", REFUSED)
def test_what_train_refuses(given, run, pictures, tmp_path, capsys):
    arguments = [part.replace("RUN", str(run)) for part in given.split()]
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "new")]
    assert main(["train", "--data", str(pictures), *out, *arguments]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert REFUSED[given].replace("RUN", str(run)) in said
    assert not (tmp_path / "new").exists()


def test_an_unfinished_run_is_not_written_over(pictures, tmp_path, capsys):
    net = create("xception_small", num_classes=3, width=0.25, depth=1)
    saved.save(net, tmp_path)
    arguments = ["train", *TINY, "--data", str(pictures), "--epochs", "1", "--out", str(tmp_path)]
    assert main(arguments) == 0  # a network is no run
    assert main(arguments) == 0  # a run that came to its end
    path = checkpoint.files(tmp_path)[0]
    content = path.read_bytes().replace(b'\\"epochs\\": 1', b'\\"epochs\\": 9')
    path.write_bytes(content)
    assert main(arguments) == 2
    assert "1 of 9 epochs: --resume it" in capsys.readouterr().err


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    """Ground (1) below sky (0), with a row of no class (7) between them; 8 to learn from, 2 to measure on."""
    folder = tmp_path_factory.mktemp("streets")
    torch.manual_seed(0)
    for part, count in (("train", 8), ("test", 2)):
        for name in ("images", "masks"):
            (folder / part / name).mkdir(parents=True)
        for i in range(count):
            mask = torch.zeros(32, 32, dtype=torch.uint8)
            mask[12 + i :], mask[11 + i] = 1, 7
            pixels = (mask[..., None].eq(1) * 150 + torch.randint(0, 60, (32, 32, 3))).to(torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / part / "images" / f"{i}.png")
            Image.fromarray(mask.numpy()).save(folder / part / "masks" / f"{i}.png")
    (folder / "names.txt").write_text("sky\nground\n")
    return folder


def test_masks_make_a_network_that_labels_pixels(streets, ask, tmp_path):
    masks = ["--data", streets, "--classes", streets / "names.txt", "--ignore", "7"]
    with_settings = ["--with", "batch_size=4", "--with", "rate=0.01", "--epochs", "16"]
    trained = ask("train", *TINY, *masks, *with_settings, "--out", tmp_path / "a")
    assert trained["score"]["pixels"] == 2 * 31 * 32 and trained["miou"] > 0.6
    assert "8 and 2 pictures of 32x32" in ask.err
    again = ask("evaluate", tmp_path / "a", "--data", streets, "--confusion", tmp_path / "c.png")
    assert again["score"] == trained["score"]  # the classes and the value of none are the run's own
    assert sum(map(sum, again["confusion"])) == again["pixels"]
    larger = ask("evaluate", tmp_path / "a", "--data", streets, "--input", "3x64x64")
    assert larger["pixels"] == again["pixels"]  # of the masks as they stand


def test_a_classifier_becomes_the_encoder(run, streets, pictures, ask, tmp_path, capsys):
    masks = ["--data", streets, "--classes", "2", "--ignore", "7"]
    ask("train", "--from", run, "--freeze", "exit", *masks, "--epochs", "1", "--out", tmp_path / "b")
    encoder, net = (load(folder).state_dict() for folder in (run, tmp_path / "b"))
    kept = [name for name in encoder if not name.startswith("head.")]
    assert kept and all(torch.equal(encoder[name], net[name]) for name in kept)
    for model, data, says in ((run, streets, "classes of images"), (tmp_path / "b", pictures, "classes of masks")):
        assert main(["evaluate", str(model), "--data", str(data)]) == 2
        assert says in " ".join(capsys.readouterr().err.split())
    assert main(["evaluate", str(run), "--data", str(pictures), "--ignore", "7"]) == 2
    assert "are for masks" in " ".join(capsys.readouterr().err.split())
