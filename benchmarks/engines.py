"""Xception at 299 on every engine, beside timm's and Keras's as their users run them, in one run.

    python benchmarks/engines.py [--batch N ...] [--rounds N] [--skip NAME ...] [--json FILE]

The weights are random. Every timed call follows one of the same that is not, so that caches and threads are as in
steady service. The ratio is to the best peer of the same precision, round by round; below 1 is faster. The share is
of the multiply-accumulates a second that this machine reached at best in fp32. "error" is the largest difference of
a score from the same network in fp32, relative to the largest. What this machine can't run is said and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("NNCF_CI", "1")  # or else it tells its makers that it is used

import networks  # noqa: F401 - it finds the tests' helpers
import numpy as np
import peers
import torch
from promise import interleaved, middle, text

import convlite as cl
from convlite.analyse import peaks
from convlite.analyse.latency import machine
from convlite.errors import ConvliteError
from convlite.runtime import ENGINES, export, open_engine, optimise
from convlite.runtime.engines import runs_modules

SHAPE = 3, 299, 299
FITTED = 16  # images for int8
Way = tuple[str, str, str]  # whose, on what, precision
Call = Callable[[np.ndarray], Any]


def main() -> None:
    """Print a table a batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--skip", nargs="+", default=[], help="parts of names, as compile or Keras")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    here, best = machine(), peaks().macs
    macs = cl.analyse(cl.create("xception"), SHAPE).macs
    print(f"{here.processor}, {here.threads} threads, torch {here.torch}, load {here.load}")
    print(f"The best rate measured is {best / 1e9:.0f} GMAC/s in fp32, {1e3 * macs / best:.1f} ms an image.")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        ways = {
            way: call
            for make in (ours, timms, keras)
            for way, call in make(Path(folder), given.skip)
            if not any(part in " ".join(way) for part in given.skip)
        }
        for n in given.batch:
            x = np.random.default_rng(0).standard_normal((n, *SHAPE), dtype=np.float32)
            calls = {way: lambda call=call, x=x: call(x) for way, call in ways.items()}
            with torch.inference_mode():
                times = interleaved(calls, given.rounds)
                rows += table(n, times, ways, x, macs / best)
    if given.json:
        given.json.write_text(json.dumps({"machine": here.to_dict(), "peak": best, "rows": rows}, indent=1) + "\n")


def table(
    n: int, times: dict[Way, list[float]], ways: dict[Way, Call], x: np.ndarray, floor: float
) -> list[dict[str, Any]]:
    """Print one batch size, and return its rows."""
    expected = {owner: np.asarray(call(x)) for (owner, engine, kind), call in ways.items() if kind == "fp32"}
    rivals = {}
    for owner, engine, kind in times:
        if owner != "convlite":
            rivals[kind] = min(rivals.get(kind, (owner, engine, kind)), (owner, engine, kind),
                               key=lambda way: middle(times[way]))  # fmt: skip
    print(f"\n{n} at once\n{'':<46}{'ms':>14} {'of peak':>8} {'error':>8}  {'to the best peer':>16}")
    rows = []
    for way, values in sorted(times.items(), key=lambda item: middle(item[1])):
        error = float(np.abs(np.asarray(ways[way](x)) - expected[way[0]]).max() / np.abs(expected[way[0]]).max())
        ratios = [a / b for a, b in zip(values, times[rivals[way[2]]])] if way[2] in rivals else []
        share = 1e3 * n * floor / middle(values)
        name = f"{way[0]}, {way[1]}, {way[2]}"
        print(f"{name:<46}{text(values):>14} {share:>8.0%} {error:>8.0e}  {text(ratios) if ratios else '':>16}")
        rows.append({"batch": n, "whose": way[0], "engine": way[1], "precision": way[2], "ms": values,
                     "share": share, "error": error, "ratios": ratios})  # fmt: skip
    for kind, rival in rivals.items():
        own = [way for way in times if way[0] == "convlite" and way[2] == kind]
        if own:
            best = min(own, key=lambda way: middle(times[way]))
            ratios = [a / b for a, b in zip(times[best], times[rival])]
            slower = "slower beyond the noise" if np.quantile(ratios, 0.25) > 1 else "not slower beyond the noise"
            print(f"{kind}: {best[1]} is {text(ratios)} of {rival[0]} on {rival[1]}, {slower}")
    return rows


def ours(folder: Path, skip: list[str]) -> Iterator[tuple[Way, Call]]:
    """Every engine in every precision that runs here."""
    net = peers.randomise_(cl.create("xception")).eval()
    light = optimise(net, torch.zeros(1, *SHAPE))
    plain = export(net, folder / "ours.onnx", SHAPE).path
    short = (
        export(net, folder / "ours-int8.onnx", SHAPE, precision="int8", images=some()).path
        if "int8" not in skip
        else None
    )
    for engine in ENGINES:
        for kind in ("fp32", "bf16", "int8"):
            source: Any = light if runs_modules(engine) else short if kind == "int8" else plain
            if source is None or any(part in f"{engine} {kind}" for part in skip):
                continue
            try:
                yield ("convlite", engine, kind), open_engine(source, engine, kind)
            except ConvliteError as error:
                print(f"convlite, {engine}, {kind}: {error}")


def timms(folder: Path, skip: list[str]) -> Iterator[tuple[Way, Call]]:
    """timm's legacy_xception in torch, and its own export elsewhere."""
    import nncf
    import onnxruntime
    import openvino

    net = peers.randomise_(peers.timm("legacy_xception")).eval()
    yield ("timm", "torch", "fp32"), lambda x: net(torch.from_numpy(x))
    last = peers.randomise_(peers.timm("legacy_xception")).eval().to(memory_format=torch.channels_last)
    last.load_state_dict(net.state_dict())
    yield (
        ("timm", "torch channels_last", "fp32"),
        lambda x: last(torch.from_numpy(x).contiguous(memory_format=torch.channels_last)),
    )
    if "compile" not in skip:
        compiled = torch.compile(net)
        yield ("timm", "torch.compile", "fp32"), lambda x: compiled(torch.from_numpy(x))
    path = folder / "timm.onnx"
    example = torch.randn(2, *SHAPE)
    torch.onnx.export(
        net, (example,), path, input_names=["x"], dynamo=True, dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        external_data=False, verbose=False,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    yield ("timm", "onnxruntime", "fp32"), lambda x: session.run(None, {"x": x})[0]
    core = openvino.Core()
    kinds = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16}
    for kind, wanted in kinds.items():
        compiled_model = core.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": wanted})
        if compiled_model.get_property("INFERENCE_PRECISION_HINT") == wanted:
            yield ("timm", "openvino", kind), lambda x, model=compiled_model: model(x)[0]
    if "int8" not in skip:
        quantised = nncf.quantize(core.read_model(path), nncf.Dataset([one[None].numpy() for one in some()]))
        short = core.compile_model(quantised, "CPU", {"INFERENCE_PRECISION_HINT": openvino.Type.f32})
        yield ("timm", "openvino, NNCF", "int8"), lambda x: short(x)[0]


def keras(folder: Path, skip: list[str]) -> Iterator[tuple[Way, Call]]:
    """Keras's own Xception; its images have the channels last."""
    if "Keras" in skip:
        return
    from keras.applications import Xception

    net = Xception(weights=None)
    turned: dict[int, np.ndarray] = {}  # once for each batch size, as its users have them

    def run(x: np.ndarray) -> Any:
        if len(x) not in turned:
            turned[len(x)] = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        return net.predict_on_batch(turned[len(x)])

    yield ("Keras", "torch", "fp32"), run


def some() -> torch.Tensor:
    """Images to fit int8 to."""
    return torch.randn(FITTED, *SHAPE, generator=torch.Generator().manual_seed(0))


if __name__ == "__main__":
    main()
