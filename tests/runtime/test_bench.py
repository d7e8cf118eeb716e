"""The bench runs every engine on the same images, compares their answers, and does not rank noise."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from convlite.analyse import Timing
from convlite.analyse.latency import machine
from convlite.errors import InputError, RunError
from convlite.runtime import bench, export
from convlite.runtime.bench import Bench, Run
from convlite.runtime.footprint import footprint
from convlite.runtime.quantise import Calibration


def test_every_engine_and_precision_runs_or_says_why_not(net, tmp_path):
    engines = ("torch", "torch-channels-last", "onnxruntime", "openvino", "tensorrt")
    found = bench(
        net, (3, 12, 12), engines=engines, precisions=("fp32", "int8"), batches=(1, 3), threads=1, rounds=2,
        memory=False,
    )  # fmt: skip
    assert {(run.engine, run.batch) for run in found.runs} == {(e, n) for e in engines[:4] for n in (1, 3)}
    for run in found.runs:
        assert run.precision == "fp32" and run.error < 1e-5 and run.agreement == 1.0 and run.threads == 1
        assert run.drop == 0 and run.accuracy is None and run.memory is None
        assert run.images_per_second == pytest.approx(1e3 * run.batch / run.timing.median)
        assert 0 < run.of_peak < 1
    assert "no engine 'tensorrt'" in found.skipped["tensorrt fp32"]
    assert "fitted to images, and none were given" in found.skipped["int8"]
    assert "torch runs no int8" in found.skipped["torch int8"]
    plain = found.to_dict()
    assert set(plain["fastest"]) == {"1", "3"} and plain["shape"] == [3, 12, 12]


def test_an_exported_file(net, tmp_path):
    made = export(net, tmp_path / "net.onnx", (3, 12, 12))
    found = bench(made.path, (3, 12, 12), batches=(1,), rounds=2, threads=1)
    assert {run.engine for run in found.runs} == {"onnxruntime", "openvino"}
    assert all(run.memory > 0 for run in found.runs)
    assert "torch reads .pt2 files" in found.skipped["torch fp32"]
    with pytest.raises(InputError, match="images of any size"):
        bench(made.path)


def test_int8_beside_fp32_with_labels_and_several_numbers_of_threads(net):
    images = torch.randn(24, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = net(images[16:]).argmax(1)
    given = Calibration(images[:16], images[16:], labels, max_drop=0.5)
    cores = len(os.sched_getaffinity(0))
    found = bench(
        net, (3, 12, 12), engines=("onnxruntime",), precisions=("fp32", "int8"), batches=(2,), threads=(1, cores),
        rounds=2, images=given, memory=False,
    )  # fmt: skip
    assert [(run.precision, run.threads) for run in found.runs] == [
        ("fp32", 1), ("fp32", cores), ("int8", 1), ("int8", cores),
    ]  # fmt: skip
    assert all(run.accuracy == run.agreement == 1 - run.drop for run in found.runs)
    plain, short = found.runs[0], found.runs[-1]
    assert plain.accuracy == 1 and plain.error < 1e-5 < short.error
    assert found.fits(short) and not dataclasses.replace(found, max_drop=None).fits(short)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is told by Linux alone")
def test_memory_is_that_of_one_engine(tmp_path):
    """The weights and what lies between the layers; not what this process holds, nor the packages."""
    large = nn.Sequential(nn.Flatten(), nn.Linear(48, 1 << 17), nn.Linear(1 << 17, 16)).eval()
    path = export(large, tmp_path / "a.onnx", (3, 4, 4)).path
    weights, between = 4 * 64 * (1 << 17), 4 * 64 * (1 << 17)  # bytes, the second for 64 images
    held = footprint(path, "onnxruntime", "fp32", 1, (64, 3, 4, 4))
    assert weights + between < held < 4 * (weights + between)
    with pytest.raises(RunError, match=r"bf16 can't be run in a process of its own: .*has no bf16"):
        footprint(path, "onnxruntime", "bf16", 1, (1, 3, 4, 4))


def run(name, low, median, high, error=0.0):
    timing = Timing(median, low, high, 20, low)
    return Run(name, "fp32", 1, 1, timing, 1e3 / median, error, 1.0, None, 0.0, None, None)


def test_what_lies_within_the_noise_is_not_ranked():
    clear, near, far, wrong = (
        run("a", 9, 10, 11),
        run("b", 10.5, 11.5, 12),
        run("c", 12, 13, 14),
        run("d", 1, 1, 1, 0.1),
    )
    found = Bench((3, 8, 8), (far, near, wrong, clear), {}, machine(), 1e-3)
    assert found.fastest(1) == (clear, near)
    assert dataclasses.replace(found, tolerance=0.2).fastest(1) == (wrong,)
    assert found.fastest(8) == ()


def test_nothing_to_run(net):
    with pytest.raises(InputError, match="No engine can run this: tensorrt fp32"):
        bench(net, (3, 12, 12), engines=("tensorrt",))
    with pytest.raises(InputError, match="size of its images"):
        bench(net)
    with pytest.raises(InputError, match="float32 images"):
        bench(net, (3, 12, 12), engines=("torch",), images=np.zeros((2, 3, 12, 12)))
