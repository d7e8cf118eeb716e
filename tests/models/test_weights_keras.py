"""Keras Xception in its three files."""

import importlib
import warnings

import h5py
import numpy
import pytest
import torch

from convlite.errors import InputError
from convlite.models import create

# Keras's torch backend converts its variables in a way that numpy 2 deprecates.
pytestmark = [
    pytest.mark.usefixtures("fill_once"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
BLOCKS = {i: 2 if i in (2, 3, 4, 13, 14) else 3 for i in range(2, 15)}  # separable convolutions in each
SHORTCUT = (2, 3, 4, 13)


@pytest.fixture(scope="module")
def peer():
    """Keras's own network with random weights and statistics, on torch, for images of 299×299."""
    generator = numpy.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("KERAS_BACKEND", "torch")
        warnings.simplefilter("ignore")
        keras = importlib.import_module("keras")
        net, odd = (
            keras.applications.Xception(
                weights=None, classes=10, classifier_activation=None, input_shape=(size, size, 3)
            )
            for size in (299, 107)
        )
        for layer in net.layers:
            for weight in layer.weights:
                weight.assign(_random(generator, weight.path.split("/")[-1], weight.shape))
        odd.set_weights(net.get_weights())
        net.odd = odd  # the same for images of another size, which a network of Keras does not take
        yield net


def _random(generator, name, shape):
    if name in ("gamma", "moving_variance"):
        return generator.uniform(0.5, 1.5, shape).astype("float32")
    bound = (
        0.2 if len(shape) == 1 else (6 / numpy.prod(shape[:2] if name == "depthwise_kernel" else shape[:-1])) ** 0.5
    )
    return generator.uniform(-bound, bound, shape).astype("float32")


def _numbered(net, kind):
    """Layers without a name of their own; the first has no number, or all have in a longer session."""
    found = [layer for layer in net.layers if layer.name.startswith(kind)]
    return sorted(found, key=lambda layer: int(layer.name.removeprefix(kind).lstrip("_") or 0))


def creation_order(net):
    """The layers as Keras 1 numbered them: a shortcut before its block."""
    auto = {kind: _numbered(net, kind) for kind in ("conv2d", "batch_normalization")}
    get = net.get_layer
    order = [get(f"block1_conv{i}{bn}") for i in (1, 2) for bn in ("", "_bn")]
    for block, count in BLOCKS.items():
        if block in SHORTCUT:
            order += [auto[kind][SHORTCUT.index(block)] for kind in ("conv2d", "batch_normalization")]
        order += [get(f"block{block}_sepconv{i}{bn}") for i in range(1, count + 1) for bn in ("", "_bn")]
    return [*order, get("predictions")]


PARTS = {
    "Conv2D": ("convolution2d", ("W",)),
    "SeparableConv2D": ("separableconvolution2d", ("depthwise_kernel", "pointwise_kernel")),
    "BatchNormalization": ("batchnormalization", ("gamma", "beta", "running_mean", "running_std")),
    "Dense": ("dense", ("W", "b")),
}


def write_keras_1(net, path, without=()):
    counts = dict.fromkeys(PARTS, 0)
    with h5py.File(path, "w") as file:
        written = []
        for layer in creation_order(net):
            kind = type(layer).__name__
            if layer.name in without:
                continue
            counts[kind] += 1
            word, parts = PARTS[kind]
            name = f"{word}_{counts[kind] + (kind == 'Dense')}"
            for part, weight in zip(parts, layer.get_weights(), strict=True):
                file[f"{name}/{name}_{part}:0"] = weight
            written.append(name.encode())
        file.attrs["layer_names"] = numpy.array(written)


def logits(net, image):  # (N, 3, H, W)
    with torch.no_grad():
        return torch.as_tensor(net(image.permute(0, 2, 3, 1).numpy(), training=False))


@pytest.mark.parametrize("name", ["whole.h5", "x.weights.h5", "keras_1.h5"])
def test_same_logits(name, peer, tmp_path):
    path = tmp_path / name
    if name == "keras_1.h5":
        write_keras_1(peer, path)
    elif name == "whole.h5":
        peer.save(path)
    else:
        peer.save_weights(path)
    ours = create("xception", num_classes=10, pretrained=path).eval()
    assert ours.loaded.mode == "keras" and not ours.loaded.left_out and not ours.loaded.fresh
    torch.manual_seed(0)
    for net, size in ((peer, 299), (peer.odd, 107)):
        image = torch.rand(1, 3, size, size) * 2 - 1
        with torch.no_grad():
            expected, given = logits(net, image), ours(image)
        assert (expected - given).abs().max() < 1e-4 * expected.abs().max()
    # every other network of these shapes is told apart: the last block's batch norms are equally wide
    state = ours.state_dict()
    for part in ("weight", "bias", "running_mean", "running_var"):
        one, other = f"exit.block12.branch.norm2.{part}", f"exit.block12.shortcut.norm.{part}"
        state[one], state[other] = state[other].clone(), state[one].clone()
    ours.load_state_dict(state)
    with torch.no_grad():
        assert (expected - ours(image)).abs().max() > 1e-3 * expected.abs().max()


def test_a_file_without_classifier_and_one_of_another_network(peer, tmp_path):
    write_keras_1(peer, tmp_path / "notop.h5", without=("predictions",))
    ours = create("xception", pretrained=tmp_path / "notop.h5")
    assert ours.loaded.fresh == ("head.classifier.weight", "head.classifier.bias")
    write_keras_1(peer, tmp_path / "other.h5", without=("block14_sepconv2",))
    with pytest.raises(InputError, match="is no Keras Xception"):
        create("xception", pretrained=tmp_path / "other.h5")
