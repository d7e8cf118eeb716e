"""Exported networks answer as the network did, on every engine, and say how to use them."""

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import peers
import pytest
import torch
from PIL import Image
from torch import nn

from convlite.data.pictures import read as read_picture
from convlite.errors import InputError, RunError
from convlite.nn import SeparableConv2d
from convlite.preprocess import HALF, Preprocess
from convlite.runtime import export, open_engine, optimise, read_exported, why_not
from convlite.runtime.engines import DEFAULT, load
from convlite.runtime.export import SUFFIXES
from convlite.runtime.optimise import difference

HOW = Preprocess((32, 32), *HALF, 0.9)


@pytest.fixture(scope="module")
def net():
    """A batch norm to fold, one that can't be, a separable convolution with several terms, any image size."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.BatchNorm2d(8),
        SeparableConv2d(8, 16, 3, padding=1, multiplier=2, bias=False), nn.BatchNorm2d(16), nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(16, 10),
    ]  # fmt: skip
    return peers.randomise_(nn.Sequential(*layers)).eval()


@pytest.fixture(scope="module")
def files(net, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    made = {}
    for to, suffix in (("onnx", ".onnx"), ("openvino", ".xml"), ("pt2", ".pt2")):
        made[suffix] = export(net, folder / f"net{suffix}", HOW.shape, to=to, preprocess=HOW, classes="abcdefghij")
    return made


@pytest.mark.parametrize(
    ("engine", "suffix"),
    [
        ("torch", ".pt2"), ("torch-channels-last", ".pt2"), ("onnxruntime", ".onnx"), ("openvino", ".onnx"),
        ("openvino", ".xml"), ("torch", None), ("torch-channels-last", None), ("convlite", ".pt2"),
        ("convlite", None),
    ],
)  # fmt: skip
def test_the_same_scores_on_every_engine(net, files, engine, suffix):
    source = net if suffix is None else files[suffix].path
    session = open_engine(source, engine, threads=1)
    assert (session.name, session.precision, session.threads) == (engine, "fp32", 1)
    exact = copy.deepcopy(net).double()
    for n, height, width in ((1, 32, 32), (8, 32, 32), (2, 40, 52)):
        images = torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(n))
        with torch.no_grad():
            expected = exact(images.double())
        # fp32 is fp32: half precision, which an engine may take by itself, is off by a thousandth
        assert difference(expected, torch.from_numpy(session(images.numpy()))) < 1e-5


def test_bf16_is_bf16_or_refused(net, files):
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = net(images)
    assert 1e-4 < difference(expected, torch.from_numpy(open_engine(net, "torch", "bf16")(images.numpy()))) < 0.1
    with pytest.raises(InputError, match="onnxruntime has no bf16"):
        open_engine(files[".onnx"].path, "onnxruntime", "bf16")
    try:
        session = open_engine(files[".onnx"].path, "openvino", "bf16")
    except InputError as error:
        assert "this processor does not have" in str(error)
    else:
        assert difference(expected, torch.from_numpy(session(images.numpy()))) > 1e-4
    assert next(net.parameters()).dtype == torch.float32  # as it was


def test_fp32_is_fp32_whatever_the_program_allows_torch(net):
    images = torch.randn(4, 3, 32, 32)
    exact = copy.deepcopy(net).double()(images.double())
    kinds = torch.backends.mkldnn.conv, torch.backends.mkldnn.matmul
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = "bf16"
        assert difference(exact, torch.from_numpy(open_engine(net, "torch", threads=1)(images.numpy()))) < 1e-5
        assert all(kind.fp32_precision == "bf16" for kind in kinds)  # as it was
    finally:
        for kind, precision in zip(kinds, before):
            kind.fp32_precision = precision


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize(("to", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml")])
def test_weights_in_sixteen_bits(net, tmp_path, to, suffix, precision):
    """The scores are those of the rounded weights, computed in fp32; the file holds half as many bytes for them."""
    wide = nn.Sequential(net[:-1], nn.Linear(16, 4096)).eval()
    made = export(wide, tmp_path / f"a{suffix}", HOW.shape, to=to, precision=precision)
    light = optimise(wide, torch.zeros(1, *HOW.shape)).double()
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        for weight in light.parameters():
            if weight.dim() > 1:
                weight.copy_(weight.to({"fp16": torch.float16, "bf16": torch.bfloat16}[precision]))
        rounded, exact = light(images.double()), copy.deepcopy(wide).double()(images.double())
    session = open_engine(read_exported(made.path).path, DEFAULT[suffix], threads=1)
    scores = torch.from_numpy(session(images.numpy()))
    assert difference(rounded, scores) < 1e-5 < difference(exact, scores)
    weights = sum(weight.numel() for weight in light.parameters() if weight.dim() > 1)
    biases = 4 * sum(weight.numel() for weight in light.parameters() if weight.dim() == 1)
    assert sum(file.stat().st_size for file in made.files) < 2 * weights + biases + 60_000 < 3 * weights + biases
    assert made.precision == precision


def test_weights_beyond_fp16(net, tmp_path):
    large = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).eval()
    nn.init.constant_(large[1].weight, 1e6)
    with pytest.raises(InputError, match=r"1\.weight holds numbers beyond the range of fp16"):
        export(large, tmp_path / "a.onnx", (3, 2, 2), precision="fp16")


def test_what_stands_beside_the_file(files, tmp_path):
    for suffix, made in files.items():
        assert read_exported(made.path) == made and made.shape == (None, 3, None, None)
        said = json.loads(made.about.read_text())
        assert said["preprocess"] == HOW.to_dict() and said["classes"] == list("abcdefghij")
        assert said["file"] == f"net{suffix}" and said["precision"] == "fp32"


WITHOUT_CONVLITE = """
import json, sys
import numpy, onnxruntime
said = json.load(open(sys.argv[1] + ".onnx.json"))
session = onnxruntime.InferenceSession(sys.argv[1] + ".onnx")
print(session.run([said["output"]["name"]], {said["input"]["name"]: numpy.load(sys.argv[2])})[0].tolist())
assert "convlite" not in sys.modules and "torch" not in sys.modules
"""


def test_moved_elsewhere_it_needs_no_convlite(net, files, tmp_path):
    for file in (files[".onnx"].path, files[".onnx"].about):
        shutil.copy(file, tmp_path)
    images = torch.randn(2, 3, 32, 32)
    np.save(tmp_path / "images.npy", images.numpy())
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_CONVLITE, tmp_path / "net", tmp_path / "images.npy"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), net(images), rtol=1e-4, atol=1e-5)


def test_any_size_is_promised_where_it_holds(tmp_path):
    """Torch's exporter writes adaptive pooling to several pixels for the size that it saw."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(36, 2)).eval()
    made = {to: export(net, tmp_path / f"a{SUFFIXES[to]}", (3, 12, 12), to=to) for to in ("onnx", "pt2")}
    assert made["onnx"].shape == (None, 3, 12, 12)
    assert made["pt2"].shape == (None, 3, None, None)
    images = torch.randn(3, 3, 20, 31)
    found = open_engine(made["pt2"].path, "torch", threads=1)(images.numpy())
    with torch.no_grad():
        assert difference(net(images), torch.from_numpy(found)) < 1e-5


class Moody(nn.Module):
    """Answers otherwise when traced."""

    def forward(self, x):
        return x.mean((2, 3)) * (2 if torch.compiler.is_exporting() else 1)


def test_a_file_that_answers_otherwise_is_not_kept(tmp_path):
    (tmp_path / "a.onnx").write_text("older")
    with pytest.raises(RunError, match="answers an image differently"):
        export(Moody(), tmp_path / "a.onnx", HOW.shape)
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]
    assert (tmp_path / "a.onnx").read_text() == "older"


def test_the_readmes_lines_treat_a_picture_as_we_do(net, tmp_path, monkeypatch, capsys):
    """Run as they stand, on a photograph that is not square."""
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((90, 60), 60).resize((600, 400)).convert("RGB").save("photo.jpg", quality=95)
    how = Preprocess((224, 224), *HALF, 0.875, "bicubic")
    export(net, "a.onnx", how.shape, preprocess=how, classes="abcdefghij")
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    code = text[text.index("import json, numpy, onnxruntime") :].partition("```")[0]
    values = {}
    exec(code, values)
    ours = how.normalise(read_picture("photo.jpg", how)[None])
    assert np.abs(values["images"] - ours.numpy()).mean() < 0.02
    with torch.no_grad():
        assert capsys.readouterr().out.strip() == "abcdefghij"[net(ours).argmax()]


class Branching(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


def test_what_is_refused(net, files, tmp_path):
    with pytest.raises(InputError, match=r"formats and their files are onnx \(.onnx\)"):
        export(net, tmp_path / "a.tflite", HOW.shape)
    with pytest.raises(InputError, match="can't trace Branching"):
        export(Branching(), tmp_path / "a.onnx", HOW.shape)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="no engine 'tensorrt'"):
        why_not("tensorrt")
    with pytest.raises(InputError, match="export the network first"):
        open_engine(net, "onnxruntime")
    with pytest.raises(InputError, match=r"onnxruntime reads \.onnx files"):
        open_engine(files[".pt2"].path, "onnxruntime")
    with pytest.raises(InputError, match="holds fp32 weights"):
        open_engine(files[".onnx"].path, "onnxruntime", "int8")
    with pytest.raises(InputError, match="no exported network"):
        open_engine(tmp_path / "none.onnx", "onnxruntime")
    with pytest.raises(InputError, match="one thread at least"):
        open_engine(net, "torch", threads=0)
    with pytest.warns(UserWarning, match="in each other's way"):
        open_engine(net, "torch", threads=4096)
    with pytest.raises(InputError, match="float32 images"):
        open_engine(net, "torch")(np.zeros((1, 3, 32, 32)))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_what_an_engine_cant_run(files, tmp_path, engine):
    """The engine's own reason, in a sentence."""
    with pytest.raises(InputError, match=rf"{engine} can't run net\.onnx on images \(1, 5, 32, 32\): "):
        open_engine(files[".onnx"].path, engine, threads=1)(np.zeros((1, 5, 32, 32), np.float32))
    graph = onnx.load(files[".onnx"].path)
    next(node for node in graph.graph.node if node.op_type == "Gemm").op_type = "Unheard"
    onnx.save(graph, tmp_path / "net.onnx")
    with pytest.raises(InputError, match=rf"{engine} can't run net\.onnx: .*Unheard"):
        load(tmp_path / "net.onnx", engine, "fp32", 1)


@pytest.mark.parametrize(
    ("suffix", "part"), [(".onnx", ".onnx"), (".xml", ".xml"), (".xml", ".bin"), (".pt2", ".pt2")]
)
def test_a_file_cut_short(files, tmp_path, suffix, part):
    for path in files[suffix].path.parent.glob("net.*"):
        shutil.copy(path, tmp_path)
    whole = (tmp_path / f"net{part}").read_bytes()
    (tmp_path / f"net{part}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cut short or changed"):
        open_engine(tmp_path / f"net{suffix}", DEFAULT[suffix])
