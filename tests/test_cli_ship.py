"""The verbs that ship a network: what they write, and what they say of it."""

import json

import pytest
import torch
from PIL import Image

import convlite
from convlite.cli import main
from convlite.models.saved import save
from convlite.runtime import read_exported

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two classes of 12 pictures each, told apart by their brightness."""
    folder = tmp_path_factory.mktemp("pictures")
    torch.manual_seed(0)
    for part in ("train", "test"):
        for name, level in (("dark", 60), ("light", 190)):
            (folder / part / name).mkdir(parents=True)
            for i in range(6):
                pixels = (torch.randn(16, 16, 3) * 25 + level).clamp(0, 255).to(torch.uint8)
                Image.fromarray(pixels.numpy()).save(folder / part / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    torch.manual_seed(0)
    how = {"size": [16, 16], "channels": 3, "mean": [0.5] * 3, "std": [0.3] * 3}
    net = convlite.create("xception_small", num_classes=2, width=0.25, depth=1)
    return save(net, tmp_path_factory.mktemp("runs") / "small", {"classes": ["dark", "light"], "preprocess": how})


def test_int8_is_measured_on_the_pictures_that_are_held_out(small, pictures, tmp_path, capsys):
    out = tmp_path / "a.onnx"
    asked = ["export", small, "--precision", "int8", "--data", pictures, "--max-drop", 0.9, "--out", out]
    assert main([*map(str, asked)]) == 0
    printed = capsys.readouterr().out
    assert "int8" in printed and "of 12 held-out images" in printed and "Accuracy: " in printed
    cost = read_exported(out).quantised
    assert cost.images == 12 and cost.kept == () and len(cost.accuracy) == 2
    assert json.loads((tmp_path / "a.onnx.json").read_text())["quantised"]["agreement"] == cost.agreement


def test_int8_without_pictures(small, tmp_path, capsys):
    assert main(["export", str(small), "--precision", "int8", "--out", str(tmp_path / "a.onnx")]) == 2
    said = capsys.readouterr().err
    assert "name those it was trained on with --data" in " ".join(said.split())
    assert not list(tmp_path.iterdir())


def test_bench_draws_what_it_measured(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # where the machine's peaks are remembered
    asked = ["bench", small, "--engine", "torch", "--threads", 1, "--batch", 2, "--rounds", 1, "--no-memory"]
    picture = tmp_path / "times.png"
    assert main([*map(str, asked), "--picture", str(picture), "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["engine"], run["batch"], run["threads"], run["memory"]) == ("torch", 2, 1, None)
    with Image.open(picture) as image:
        assert image.format == "PNG"
