"""How long lightening takes for large networks, and whether a latency that is asked for is the one that comes out.

    python benchmarks/lighten_large.py [NETWORK ...] [--images N] [--size N] [--engine NAME] [--json FILE]

Random weights and images: time and memory do not depend on them. For each network the seconds of the study, of the
light network at half of the multiply-accumulates, and of the plan for a second budget, and the most memory that the
process ever took. Then half of the dense time is asked for, and the light network is timed against the dense one,
in turn, in one run: beside its plan's promise stands how far the dense one is from what the plan says of that.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import convlite as cl
from convlite.analyse.latency import machine
from convlite.runtime import export, open_engine

ROUNDS, UNCOUNTED, COUNTED = 15, 3, 5


def main() -> None:
    """Print what was measured, network by network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["resnet50", "vgg16"])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    here = machine()
    print(f"{here.processor}, {here.threads} threads, torch {here.torch}, load {here.load}")
    rows = []
    for name in given.networks:
        rows.append(measured(name, given.images, given.size, given.engine))
        if given.json:
            given.json.write_text(json.dumps({"machine": here.to_dict(), "rows": rows}, indent=1) + "\n")


def measured(name: str, images: int, size: int, engine: str) -> dict[str, Any]:
    """One network, and its lines printed."""
    torch.manual_seed(0)
    net, shape = cl.create(name).eval(), (3, size, size)
    print(f"\n{name} at {size}×{size}, {images} images")
    begun = time.perf_counter()
    known = cl.study(net, torch.randn(images, *shape))
    row: dict[str, Any] = {"network": name, "size": size, "images": images, "study": taken("study", begun)}
    begun = time.perf_counter()
    half = cl.lighten(known, None, cl.Budget(macs=0.5))
    row["lighten"] = taken("light network at MACs × 0.5", begun)
    row["stages"] = {stage.name: stage.seconds for stage in half.record.stages[1:]}
    for stage, seconds in row["stages"].items():
        print(f"  {seconds:8.1f} s    of it {stage}")
    del half
    begun = time.perf_counter()
    known.plan(cl.Budget(macs=0.3))
    row["plan"] = taken("another budget planned", begun)
    row["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 2**30
    print(f"  {row['memory']:8.2f} GiB at most")
    begun = time.perf_counter()
    timed = known.timed(cl.Budget(latency_ms=1e9, engine=engine))
    row["timing"] = taken("every option timed", begun)
    begun = time.perf_counter()
    plan = timed.plan_within(cl.Budget(latency_ms=timed.ms / 2, engine=engine))
    row["planning"] = taken("plans measured", begun)
    assert plan.ms is not None
    row["plan of the latency"] = json.loads(plan.to_json())
    times = in_turn({"dense": net, "light": cl.apply(net, plan)}, shape, engine)
    ratios = sorted(dense / light for dense, light in zip(times["dense"], times["light"]))
    median, low, high = statistics.median(ratios), ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
    off = statistics.median(times["light"]) / plan.ms[1]
    drift = statistics.median(times["dense"]) / plan.ms[0]
    fewer = plan.before.macs / plan.after.macs
    print(
        f"  asked for {timed.ms / 2:.1f} ms on {engine}, promised {plan.ms[1]:.1f}; measured × {off:.3f} of that "
        f"(the dense one × {drift:.3f})\n"
        f"  {median:.2f}× faster ({low:.2f} to {high:.2f}) with {fewer:.2f}× fewer MACs"
    )
    return row | {
        "engine": engine, "asked": timed.ms / 2, "promised": plan.ms[1], "off": off, "drift": drift,
        "faster": [median, low, high], "fewer": fewer,
    }  # fmt: skip


def taken(what: str, begun: float) -> float:
    """Seconds since then, printed."""
    seconds = time.perf_counter() - begun
    print(f"  {seconds:8.1f} s  {what}", flush=True)
    return seconds


def in_turn(nets: dict[str, Any], shape: tuple[int, int, int], engine: str) -> dict[str, list[float]]:
    """Milliseconds of each network for one image, round by round."""
    images = np.random.default_rng(0).standard_normal((1, *shape), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: export(net, Path(folder) / f"{name}.onnx", shape).path for name, net in nets.items()}
        calls = {name: partial(open_engine(file, engine), images) for name, file in files.items()}
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(ROUNDS):
            for name, call in calls.items():
                for _ in range(UNCOUNTED):  # caches and threads are then as in steady service
                    call()
                begun = time.perf_counter()
                for _ in range(COUNTED):
                    call()
                times[name].append(1e3 * (time.perf_counter() - begun) / COUNTED)
        return times


if __name__ == "__main__":
    main()
