"""The verbs, in this process: what they answer, and that one verb's output is the next one's input."""

import json
import sys
from types import SimpleNamespace

import peers
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import convlite.models
from convlite.cli import main
from convlite.data.pictures import read as read_picture
from convlite.errors import InputError
from convlite.kinds import Normal, Separable
from convlite.models.saved import load, save
from convlite.preprocess import Preprocess

TINY = """
from torch import nn

def net():
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 24, 3, padding=1, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 2),
    )

module = net()
number = 3
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two classes of 20 pictures each, told apart by their brightness."""
    folder = tmp_path_factory.mktemp("pictures")
    torch.manual_seed(0)
    for name, level in (("dark", 60), ("light", 190)):
        (folder / name).mkdir()
        for i in range(20):
            pixels = (torch.randn(16, 16, 3) * 25 + level).clamp(0, 255).to(torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("code") / "tiny.py"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory):
    """A trained network in its folder."""
    folder = tmp_path_factory.mktemp("runs") / "a"
    arguments = ["--model", "resnet20", "--data", str(pictures), "--epochs", "1", "--out", str(folder), "--json"]
    assert main(["train", *arguments]) == 0
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A saved network of a family that has few convolutions."""
    torch.manual_seed(0)
    about = {
        "classes": ["dark", "light"],
        "preprocess": {"size": [16, 16], "channels": 3, "mean": [0.5] * 3, "std": [0.3] * 3},
    }
    net = convlite.create("xception_small", num_classes=2, width=0.25, depth=1)
    return save(net, tmp_path_factory.mktemp("runs") / "small", about)


@pytest.fixture
def ask(capsys):
    """Run a verb with --json and give the object it prints; there must be nothing else on stdout."""

    def asked(*arguments):
        capsys.readouterr()
        assert main([*map(str, arguments), "--json"]) == 0
        printed = capsys.readouterr().out
        assert printed.count("\n") == 1
        return json.loads(printed)

    return asked


@pytest.fixture
def read(capsys):
    """Run a verb and give what it prints for people."""

    def asked(*arguments):
        capsys.readouterr()
        assert main([*map(str, arguments)]) == 0
        return capsys.readouterr().out

    return asked


def test_models(ask, read, monkeypatch):
    few = {name: convlite.models.FAMILIES[name] for name in ("xception", "resnet20")}
    monkeypatch.setattr("convlite.cli.look.FAMILIES", few)
    found = {one["name"]: one for one in ask("models")["models"]}
    assert set(found) == set(few)
    assert (found["xception"]["params"], found["xception"]["macs"]) == (22_855_952, 8_357_403_496)
    assert "arXiv 1610.02357" in read("models")


def test_cost_of_a_family(ask, read):
    answer = ask("cost", "resnet20", "--input", "3x32x32")
    assert (answer["params"], answer["macs"]) == (269_722, 40_551_040)
    assert sum(row["macs"] for row in answer["rows"]) == answer["macs"]
    light = ask("cost", "resnet20", "--conv", "separable")
    assert light["macs"] < answer["macs"] / 3
    assert "269,722 parameters, 40,551,040 MACs" in read("cost", "resnet20")
    assert len(read("cost", "resnet20", "--layers").splitlines()) > 60
    assert len(read("cost", "resnet20", "--top", "3", "--by", "params").splitlines()) < 14


def test_cost_of_code_in_a_file(ask, tiny):
    expected = 3 * 12 * 9 * 64 + 12 * 24 * 9 * 16 + 24 * 2
    for factory in ("net", "module"):
        assert ask("cost", f"{tiny}:{factory}", "--input", "3x8x8")["macs"] == expected


def test_cost_of_a_network_of_timm(ask, monkeypatch):
    """With a stand-in for timm, whose own import takes seconds."""

    def create_model(name, pretrained, **options):
        assert not pretrained, "costs need no weights"
        net = nn.Conv2d(options.get("in_chans", 3), 8, 3)
        net.default_cfg = {"input_size": (3, 6, 6)}
        return net

    timm = SimpleNamespace(is_model=lambda name: name == "tiny", create_model=create_model)
    monkeypatch.setitem(sys.modules, "timm", timm)
    assert ask("cost", "timm:tiny")["macs"] == 3 * 8 * 9 * 16
    assert ask("cost", "timm:tiny.in1k", "--input", "1x8x8")["macs"] == 8 * 9 * 36


def test_compare(ask, read):
    arguments = ["compare", "--in", 728, "--out", 728, "--kernel", 3, "--size", 19, "--rounds", 0]
    found = {one["kind"]: one for one in ask(*arguments)["kinds"]}
    sizes = {"c": 728, "m": 728, "k": 3, "h": 19}
    assert found["separable"]["macs"] == Separable().cost(**sizes).macs
    ratio = Normal().cost(**sizes).macs / Separable().cost(**sizes).macs
    assert found["separable"]["promised"] == pytest.approx(ratio)
    text = read(*arguments)
    assert "K²·C + C·M" in text
    assert "8.9×" in text


def test_compare_measures_both_layouts_with_spread(ask, read):
    arguments = ["compare", "--in", 8, "--out", 8, "--size", 5, "--rounds", 1]
    for one in ask(*arguments)["kinds"]:
        assert set(one["ms"]) == {"contiguous", "channels_last"}
        for ms in one["ms"].values():
            assert 0 < ms["low"] <= ms["median"] <= ms["high"]
            assert ms["speedup"] > 0
    assert "Measured on" in read(*arguments)


def test_training_says_what_evaluating_finds(ask, read, run, pictures):
    answer = ask("evaluate", run, "--data", pictures)
    config = json.loads((run / "config.json").read_text())
    assert answer["accuracy"] == config["about"]["metrics"]["test_accuracy"]
    assert config["about"]["classes"] == ["dark", "light"]
    assert answer["score"]["count"] == answer["count"] > 0
    assert f"{answer['correct']} of {answer['count']} images" in read("evaluate", run, "--data", pictures)


def test_the_same_seed_trains_the_same_network(ask, pictures, run, tmp_path):
    arguments = ["--model", "resnet20", "--data", pictures, "--epochs", 1, "--out"]
    ask("train", *arguments, tmp_path / "b")
    ask("train", *arguments, tmp_path / "c", "--seed", 1)
    a, b, c = (load(folder).state_dict() for folder in (run, tmp_path / "b", tmp_path / "c"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)


def test_training_goes_on_from_a_saved_network(ask, pictures, run, tmp_path):
    before = load(run).state_dict()
    answer = ask("train", "--model", run, "--data", pictures, "--epochs", 1, "--out", tmp_path / "on")
    assert answer["params"] == sum(p.numel() for p in load(run).parameters())
    assert all(torch.equal(before[name], value) for name, value in load(run).state_dict().items())


def test_what_lighten_says_evaluate_finds_to_the_last_image(ask, small, pictures, tmp_path):
    out = tmp_path / "light"
    answer = ask("lighten", small, "--macs", 0.5, "--data", pictures, "--out", out)
    dense, light = answer["dense"], answer["light"]
    assert dense["accuracy"] == ask("evaluate", small, "--data", pictures)["accuracy"]
    assert light["macs"] <= 0.5 * dense["macs"]
    assert list(light.pop("milliseconds")) == list(dense["milliseconds"])
    found = ask("evaluate", out, "--data", pictures)
    assert [found[key] for key in light] == list(light.values())
    assert ask("cost", out)["macs"] == light["macs"] == answer["plan"]["after"]["macs"]
    plan = convlite.Plan.from_json((out / "plan.json").read_text())
    again = convlite.apply(load(small), plan)
    again.load_state_dict(load(out).state_dict())
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(again(x), load(out)(x))


def test_the_frontier_is_measured_and_drawn(ask, small, pictures, tmp_path):
    answer = ask("lighten", small, "--frontier", "--images", 20, "--data", pictures, "--out", tmp_path / "curve")
    kept = [point["macs_kept"] for point in answer["points"]]
    assert len(kept) > 3 and kept == sorted(kept, reverse=True) and kept[0] <= 0.9
    assert all(0 <= point["score"] <= 1 for point in answer["points"])
    assert json.loads((tmp_path / "curve" / "frontier.json").read_text()) == {
        key: answer[key] for key in ("model", "data", "score", "dense", "points")
    }
    with Image.open(tmp_path / "curve" / "frontier.png") as picture:
        assert picture.size == (720, 400)


def test_a_network_of_ones_own_is_lightened_and_read_back(ask, read, tiny, pictures, tmp_path):
    model, out = f"{tiny}:net", tmp_path / "light"
    text = read("lighten", model, "--params", 0.6, "--distil", 1, "--data", pictures, "--out", out)
    assert "answered right" in text
    assert f"convlite evaluate {out} --data {pictures}" in text, "the next command in one line"
    answer = ask("evaluate", out, "--data", pictures, "--like", model)
    assert answer["params"] <= 0.6 * ask("cost", model, "--input", "3x16x16")["params"]


def test_labels_are_learnt_of_pictures_that_change_harder(small, pictures, tmp_path, monkeypatch):
    changes = []

    def lightened(net, images, budget, *, augment, **how):
        changes.append(augment)
        raise InputError("Enough seen.")

    monkeypatch.setattr("convlite.cli.work.make_light", lightened)
    for labels in ([], ["--labels"]):
        arguments = ["--macs", "0.5", "--distil", "1", "--data", pictures, "--out", tmp_path / "light", *labels]
        assert main(["lighten", str(small), *map(str, arguments)]) == 2
    images = convlite.data.load(str(pictures)).train.parts([torch.arange(20)])
    seen = Preprocess((16, 16), (0.5,) * 3, (0.3,) * 3).normalise(next(iter(images)).pixels)
    plain, hard = (change(seen, torch.Generator().manual_seed(0)) for change in changes)
    torch.testing.assert_close(plain, seen)
    changed = (hard - seen).flatten(1).abs().amax(1) > 0.01
    assert changed.float().mean() > 0.5  # a few are left as they were


def test_predict(ask, read, run, pictures):
    said = ask("predict", run, pictures / "dark", pictures / "light" / "3.png", "--top", 2)["predictions"]
    assert len(said) == 21
    assert said[-1]["file"] == str(pictures / "light" / "3.png")
    for one in said:
        assert {each["name"] for each in one["classes"]} == {"dark", "light"}
        assert sum(each["probability"] for each in one["classes"]) == pytest.approx(1)
    assert "probability" in read("predict", run, pictures / "dark" / "0.png")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of published weights, with its own preprocessing beside it, as the hub has them."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("hub")
    state = {k: v for k, v in convlite.create("resnet18").state_dict().items() if "num_batches" not in k}
    names = [name for name, _ in peers.tensors(peers.timm("resnet18"))]
    save_file(
        {name: value.contiguous() for name, value in zip(names, state.values())}, folder / "model.safetensors"
    )
    said = {"input_size": [3, 40, 40], "crop_pct": 0.8, "mean": [0.4] * 3, "std": [0.3] * 3}
    (folder / "config.json").write_text(json.dumps({"pretrained_cfg": said | {"interpolation": "bicubic"}}))
    return folder / "model.safetensors"


def test_published_weights_are_used_as_they_want_their_pictures(ask, weights, pictures, tmp_path):
    how = Preprocess((40, 40), (0.4,) * 3, (0.3,) * 3, 0.8, "bicubic")
    net = convlite.create("resnet18", pretrained=weights).eval()
    assert net.loaded.preprocess == how
    file = pictures / "dark" / "0.png"
    (said,) = ask("predict", "resnet18", file, "--pretrained", weights, "--top", 1)["predictions"]
    with torch.no_grad():
        expected = net(how.normalise(read_picture(file, how)[None])).softmax(1)[0]
    (best,) = said["classes"]
    assert best == {"name": f"class {expected.argmax()}", "probability": pytest.approx(float(expected.max()), 1e-3)}
    (tmp_path / "names.txt").write_text("\n".join(f"thing {i}" for i in range(1000)))
    (said,) = ask("predict", "resnet18", file, "--pretrained", weights, "--classes", tmp_path / "names.txt")[
        "predictions"
    ]
    assert said["classes"][0]["name"] == f"thing {expected.argmax()}"


def test_training_begins_from_published_weights(ask, weights, pictures, tmp_path):
    arguments = ["--data", pictures, "--epochs", 2, "--pretrained", weights, "--out", tmp_path / "a"]
    ask("train", "--model", "resnet18", *arguments)
    about = json.loads((tmp_path / "a" / "config.json").read_text())["about"]
    assert about["preprocess"]["size"] == [40, 40] and about["preprocess"]["crop"] == 0.8
    first = next(load(tmp_path / "a").parameters())
    start = next(convlite.create("resnet18", pretrained=weights).parameters())
    assert 0 < (first - start).norm() < 0.5 * start.norm()  # a step away from where it began


def test_options_of_a_family_can_be_set(ask, pictures, tmp_path):
    arguments = [
        "--data",
        pictures,
        "--epochs",
        1,
        "--out",
        tmp_path / "a",
        "--set",
        "depth=1",
        "--set",
        "width=0.5",
    ]
    ask("train", "--model", "xception_small", *arguments)
    made = json.loads((tmp_path / "a" / "config.json").read_text())["create"]["arguments"]
    assert (made["depth"], made["width"]) == (1, 0.5)


@pytest.mark.parametrize(
    "verb", ["models", "cost", "compare", "train", "evaluate", "lighten", "predict", "serve", "demo"]
)
def test_every_verb_has_help_with_an_example(verb, capsys):
    assert main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Example: convlite {verb}" in text
    assert "--json" in text or verb == "serve"
