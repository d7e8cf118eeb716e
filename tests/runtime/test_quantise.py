"""int8 keeps the answers within the bound, by leaving layers in fp32 where it must; and is int8."""

import copy
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from convlite.errors import InputError, RunError
from convlite.nn import SeparableConv2d
from convlite.runtime import export, open_engine, read_exported
from convlite.runtime.optimise import difference
from convlite.runtime.quantise import Calibration, compared, quantise

SHAPE = (3, 16, 16)


@pytest.fixture(scope="module")
def images():
    return torch.randn(80, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def net(images):
    """Its answers hang on channels that are a millionth of others where a depthwise convolution reads them."""
    torch.manual_seed(0)
    first, middle, last = nn.Conv2d(3, 16, 3, 2, 1), SeparableConv2d(16, 16, 3, padding=1), nn.Linear(16, 10)
    net = nn.Sequential(first, nn.ReLU(), middle, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last).eval()
    with torch.no_grad():
        scale = torch.logspace(-3, 3, 16)
        first.weight *= scale.view(-1, 1, 1, 1)
        first.bias *= scale
        middle.depthwise.weight /= scale.view(-1, 1, 1, 1)
        last.weight[:, 10:] = 0
        last.bias -= net(images).mean(0)
    return net


@pytest.fixture(scope="module")
def files(net, images, tmp_path_factory):
    """All in int8, and under a bound."""
    folder = tmp_path_factory.mktemp("int8")
    with torch.no_grad():
        labels = net(images[40:]).argmax(1)
    loose, tight = (Calibration(images[:40], images[40:], labels, drop) for drop in (0.99, 0.15))
    export(net, folder / "loose.onnx", SHAPE, precision="int8", images=loose)
    export(net, folder / "tight.onnx", SHAPE, precision="int8", images=tight)
    export(net, folder / "tight.xml", SHAPE, to="openvino", precision="int8", images=tight)
    return {path.name: read_exported(path) for path in (*folder.glob("*.onnx"), *folder.glob("*.xml"))}


def test_what_breaks_in_int8_stays_in_fp32(files, net, images):
    assert files["loose.onnx"].quantised.kept == () and files["loose.onnx"].quantised.agreement < 0.8
    with torch.no_grad():
        expected = net(images[40:]).argmax(1).numpy()
    for name, engines in {"tight.onnx": ("onnxruntime", "openvino"), "tight.xml": ("openvino",)}.items():
        cost = files[name].quantised
        assert cost.kept[0] == "2.depthwise" and len(cost.kept) < 4 and cost.images == 40
        for i, engine in enumerate(engines):
            scores = open_engine(files[name].path, engine, "int8", threads=1)(images[40:].numpy())
            agreement = (scores.argmax(1) == expected).mean()
            assert agreement >= 0.85
            assert i or agreement == pytest.approx(cost.agreement) == pytest.approx(cost.accuracy[1])
        said = json.loads(files[name].about.read_text())
        assert said["precision"] == "int8" and said["quantised"]["kept"] == list(cost.kept)


def test_weights_have_a_scale_a_channel_and_seven_bits(files):
    """Seven, or else processors without 8-bit dot products overflow in 16."""
    graph = onnx.load(files["loose.onnx"].path).graph
    numbers = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = [
        (numbers[node.input[0]], numbers[node.input[1]])
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in numbers
    ]
    assert sorted(w.shape for w, _ in weights) == [(10, 16), (16, 1, 3, 3), (16, 3, 3, 3), (16, 16, 1, 1)]
    for weight, scale in weights:
        depthwise = weight.shape[1:] == (1, 3, 3)  # whose products are not added in pairs
        assert weight.dtype == np.int8 and np.abs(weight.astype(int)).max() <= (127 if depthwise else 64)
        assert scale.size == len(weight)
    assert not any(each.metadata_props for each in (graph, *graph.node))  # where it was made is nobody's business


def literally(path, images):
    """Every operation by itself, which is quantised arithmetic in floats."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_engines_compute_in_int8_what_the_file_says(files, net, images, engine):
    for name in ("loose.onnx", "tight.onnx"):
        path, given = files[name].path, images.numpy()
        found = torch.from_numpy(open_engine(path, engine, "int8", threads=1)(given))
        expected = torch.from_numpy(literally(path, given))
        with torch.no_grad():
            assert difference(net(images), found) > 1e-3  # fp32 it is not
        assert (found - expected).abs().mean() < 0.05 * expected.std()  # roundings at the edges of steps


def test_what_is_refused(net, images, files, tmp_path):
    for arguments, says in [
        ({"precision": "int8"}, "fitted to images, and none were given"),
        ({"precision": "int8", "images": images[:, :, :8]}, "are 3x8x16, and the network is exported for 3x16x16"),
        ({"precision": "int4"}, "no precision 'int4' of weights: give one of fp32, fp16"),
    ]:
        with pytest.raises(InputError, match=says):
            export(net, tmp_path / "a.onnx", SHAPE, **arguments)
    with pytest.raises(InputError, match=r"\.pt2 file is written in fp32 only"):
        export(net, tmp_path / "a.pt2", SHAPE, to="pt2", precision="int8", images=images)
    with pytest.raises(InputError, match="four or more"):
        Calibration(images[:3])
    with pytest.raises(InputError, match="Labels belong to the held-out"):
        Calibration(images, labels=torch.zeros(80))
    with pytest.raises(InputError, match="same size"):
        Calibration(images, images[:, :, :8])
    with pytest.raises(InputError, match="max_drop is a share"):
        Calibration(images, max_drop=1.0)
    with pytest.raises(InputError, match="holds int8 weights, and fp32 was asked for"):
        open_engine(files["tight.onnx"].path, "onnxruntime")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite(net, images, tmp_path, bad):
    broken = copy.deepcopy(net)
    with torch.no_grad():
        broken[2].pointwise.weight[0, 0] = bad
    with pytest.raises(InputError, match="scores for these images are not finite"):
        export(broken, tmp_path / "a.onnx", SHAPE, precision="int8", images=images)
    for place in (0, 3):  # fitted to, and held out
        few = images[:8].clone()
        few[place, 0, 0, 0] = bad
        with pytest.raises(InputError, match="fit int8 to are not finite"):
            Calibration(few)
    assert not list(tmp_path.iterdir())


def test_a_bound_that_nothing_meets(net, images, tmp_path):
    plain = onnx.load(export(net, tmp_path / "a.onnx", SHAPE).path)
    before = plain.SerializeToString()
    random = np.random.default_rng(0)
    with pytest.raises(RunError, match=r"more than the bound of 1\.00% on 20 images"):
        quantise(plain, Calibration(images), lambda model: lambda x: random.standard_normal((len(x), 10)))
    assert plain.SerializeToString() == before


def test_the_quarter_that_is_held_out(images):
    given = Calibration(images)
    assert len(given.fitted) == 60 and len(given.tested) == 20
    both = np.concatenate([given.fitted.numpy(), given.tested])
    assert {x.tobytes() for x in both} == {x.tobytes() for x in images.numpy()}


def test_pixels_of_no_class_count_nowhere():
    scores = np.random.default_rng(0).standard_normal((2, 3, 4, 5), dtype=np.float32)
    answer = torch.from_numpy(scores.argmax(1))
    labels = answer.short().masked_fill(torch.arange(5) < 2, -1)
    labels[0, 0, 4] = (answer[0, 0, 4] + 1) % 3  # one of 24 that count is another
    assert compared(scores, scores, labels).accuracy == pytest.approx((23 / 24, 23 / 24))
