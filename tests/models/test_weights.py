"""Weights in the formats of other libraries give their logits here; every tensor goes to its own place."""

import json
import os

import h5py
import huggingface_hub
import peers
import pytest
import safetensors.torch
import torch

from convlite.errors import InputError
from convlite.models import create, load_weights
from convlite.models.saved import save
from convlite.models.weights.files import read
from convlite.preprocess import Preprocess

pytestmark = pytest.mark.usefixtures("fill_once")


def written(state, path):
    """A state dict as its library would write it."""
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def xception(tmp_path_factory):
    """timm's Xception with random numbers, and its file."""
    torch.manual_seed(0)
    peer = peers.randomise_(peers.timm("legacy_xception")).eval()
    return peer, written(peer.state_dict(), tmp_path_factory.mktemp("timm") / "xception.safetensors")


def test_xception_and_its_old_file_with_flat_pointwise_weights(xception, tmp_path):
    peer, path = xception
    ours = create("xception", pretrained=path)
    assert peers.difference(ours, peer, 75) < 1e-4
    assert (ours.loaded.layout, ours.loaded.mode, ours.loaded.preprocess.size[0]) == ("timm xception", "timm", 299)
    flat = {
        name: value.flatten(1) if "pointwise" in name and value.dim() == 4 else value
        for name, value in peer.state_dict().items()
    }
    old = create("xception", pretrained=written(flat, tmp_path / "xception-b5690688.pth"))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), old.parameters(), strict=True))


def test_another_number_of_classes_keeps_its_own_classifier(xception):
    peer, path = xception
    ours = create("xception", num_classes=10, pretrained=path)
    assert set(ours.loaded.left_out) == {"fc.weight", "fc.bias"}
    assert ours.loaded.fresh == ("head.classifier.weight", "head.classifier.bias")
    features = create("xception", num_classes=0, pretrained=path)
    assert set(features.loaded.left_out) == {"fc.weight", "fc.bias"} and not features.loaded.fresh
    x = torch.rand(1, 3, 75, 75)
    with torch.no_grad():
        given = features.eval()(x)
        torch.testing.assert_close(peer.fc(given), peer(x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            ours.eval().head.pool(peer.forward_features(x)).flatten(1), given, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_another_number_of_channels_changes_the_first_convolution_only(channels, tmp_path):
    peer = peers.randomise_(peers.timm("resnet18"))
    path = written(peer.state_dict(), tmp_path / "resnet18.pth")
    ours = create("resnet18", in_channels=channels, pretrained=path)
    assert not ours.loaded.left_out
    first = next(ours.parameters())
    theirs = peer.conv1.weight
    if channels == 1:
        torch.testing.assert_close(first, theirs.sum(1, keepdim=True))
        grey = torch.rand(1, 1, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(
                ours.eval()(grey), peer.eval()(grey.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4
            )
    else:
        for i in range(channels):
            torch.testing.assert_close(first[:, i], theirs[:, i % 3] * 3 / channels)


def test_feature_maps_and_auxiliary_heads(tmp_path):
    torch.manual_seed(0)
    peer = peers.randomise_(peers.torchvision("googlenet", init_weights=False))
    path = written(peer.state_dict(), tmp_path / "googlenet.safetensors")
    plain = create("googlenet", pretrained=path)
    assert plain.loaded.left_out and all(name.startswith("aux") for name in plain.loaded.left_out)
    full = create("googlenet", aux=True, pretrained=path)
    assert not full.loaded.left_out and not full.loaded.fresh
    assert torch.equal(full.aux[1].classifier.weight, peer.aux2.fc2.weight)
    maps = create("googlenet", features_only=True, pretrained=path)
    assert {"fc.weight", "aux1.fc1.bias"} < set(maps.loaded.left_out) and not maps.loaded.fresh


def test_what_we_saved_ourselves(tmp_path):
    torch.manual_seed(0)
    net = peers.randomise_(create("xception_small", mode="keras"))
    save(net, tmp_path)
    again = create("xception_small", pretrained=tmp_path / "model.safetensors")
    assert (again.loaded.layout, again.loaded.mode) == ("convlite", "keras")
    assert peers.difference(again, net, 32) == 0
    with pytest.warns(UserWarning, match="numbers of 'keras', and xception_small was made with mode='timm'"):
        create("xception_small", mode="timm", pretrained=tmp_path / "model.safetensors")
    other = create("xception_small", num_classes=3, in_channels=1, pretrained=tmp_path / "model.safetensors")
    assert set(other.loaded.left_out) == {"head.classifier.weight", "head.classifier.bias"}


def test_a_file_that_is_not_the_networks(tmp_path):
    path = written(peers.timm("resnet34").state_dict(), tmp_path / "peer.pth")
    ours = written(peers.bare(create, "resnet34").state_dict(), tmp_path / "ours.pth")
    net = create("resnet18")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(InputError, match=r"resnet18: .*stage2.* more; the nearest network is 'resnet34'\."):
        load_weights(net, path)
    with pytest.raises(InputError, match=r"resnet18 has no place for stage1.block3.* is 'resnet34'\."):
        load_weights(net, ours)
    with pytest.raises(InputError, match="nearest network is 'resnet34'"):
        create(
            "resnet18", pretrained=written({f"x.{k}": v for k, v in torch.load(path).items()}, tmp_path / "x.pt")
        )
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".h5"])
@pytest.mark.parametrize("part", [0, 0.01, 0.5, 0.99])
def test_half_a_file(suffix, part, tmp_path):
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".h5":
        with h5py.File(whole, "w") as file:
            file["layers/conv2d/vars/0"] = torch.zeros(3, 3, 3, 32).numpy()
    else:
        written({"conv1.weight": torch.zeros(64, 3, 7, 7)}, whole)
    data = whole.read_bytes()
    half = tmp_path / f"half{suffix}"
    half.write_bytes(data[: int(part * len(data))])
    with pytest.raises(InputError, match=rf"{half.name} is no whole"):
        load_weights(create("xception_small"), half)


def test_a_file_of_an_old_torch_cut_anywhere(tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"conv1.weight": torch.zeros(2, 3, 1, 1)}, path, _use_new_zipfile_serialization=False)
    assert list(read(path)[1]) == ["conv1.weight"]
    data = path.read_bytes()
    for end in range(len(data)):
        path.write_bytes(data[:end])
        with pytest.raises(InputError, match="is no whole"):
            read(path)


class Code:
    def __reduce__(self):
        return os.system, ("exit 1",)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Code(), "holds code, which is never run"),
        ([1, 2], "holds no state dict"),
        ({"a": 1}, "holds no state dict"),
    ],
)
def test_files_without_tensors(value, message, tmp_path):
    torch.save(value, tmp_path / "x.pt")
    with pytest.raises(InputError, match=message):
        load_weights(create("xception_small"), tmp_path / "x.pt")


def test_files_of_another_type(tmp_path):
    for name, message in (("x.onnx", "ends in one of .safetensors, .pth"), ("x.pth", "There is no file")):
        with pytest.raises(InputError, match=message):
            load_weights(create("xception_small"), tmp_path / name)


def test_a_download_brings_its_own_preprocessing(tmp_path, monkeypatch):
    said = {"input_size": [3, 288, 288], "crop_pct": 1.0, "mean": [0, 0, 0], "std": [1, 1, 1]}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": said}))
    written(peers.randomise_(peers.timm("resnet18")).state_dict(), tmp_path / "model.safetensors")
    asked = []

    def download(repository, name):
        asked.append((repository, name))
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    loaded = create("resnet18", pretrained="timm/resnet18.x").loaded
    assert asked == [("timm/resnet18.x", "config.json"), ("timm/resnet18.x", "model.safetensors")]
    assert loaded.preprocess == Preprocess((288, 288), (0, 0, 0), (1, 1, 1), 1.0, "bicubic")


def test_without_a_connection_a_sentence_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"Can't get timm/no-such from .* give the path of that file\."):
        create("resnet18", pretrained="timm/no-such")
