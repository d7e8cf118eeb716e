"""What is left of the promise of separable convolutions: the measured speed-up over the multiply-accumulates saved.

    python benchmarks/promise.py [NETWORK ...] [--batch N ...] [--threads N] [--rounds N] [--json FILE]

A network whose spatial convolutions are dense and the same with separable ones, all ways to run both in turn in
one run. A way's speed-up is dense over separable, round by round; the best engine's is that of the fastest way for
each. Every timed call follows one of the same that is not, so that caches and threads are as in steady service.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import convlite as cl
from convlite.analyse.latency import machine
from convlite.kinds import Normal, Separable
from convlite.runtime import export, open_engine, optimise

NETWORKS = {"vgg16": 0.85, "resnet34": 0.85, "resnet50": 0.95, "xception": None}  # and the share that is aimed at
FORMS = {"dense": Normal(), "separable": Separable()}
ENGINES = ("onnxruntime", "openvino")


def main() -> None:
    """Print a table a network and batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    here = machine()
    print(f"{here.processor}, {here.threads} threads, torch {here.torch}, load {here.load}")
    rows = [row for name in given.networks for row in measured(name, given.batch, here.threads, given.rounds)]
    if given.json:
        given.json.write_text(json.dumps({"machine": here.to_dict(), "rows": rows}, indent=1) + "\n")


def measured(name: str, batches: list[int], threads: int, rounds: int) -> list[dict[str, Any]]:
    """One network, and its table printed."""
    nets = {form: cl.create(name, conv=kind).eval() for form, kind in FORMS.items()}
    shape = cl.models.FAMILIES[name].input
    promised = cl.analyse(nets["dense"], shape).macs / cl.analyse(nets["separable"], shape).macs
    rows = []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        files = {form: export(net, Path(folder) / f"{form}.onnx", shape).path for form, net in nets.items()}
        sessions = {
            (engine, form): open_engine(file, engine, threads=threads)
            for engine in ENGINES
            for form, file in files.items()
        }
        for form, net in nets.items():
            sessions["convlite", form] = open_engine(
                optimise(net, torch.zeros(2, *shape)), "convlite", threads=threads
            )
        for n in batches:
            images = torch.randn(n, *shape)
            calls: dict[tuple[str, str], Callable[[], Any]] = {}
            for key, session in sessions.items():
                calls[key] = lambda session=session, x=images.numpy(): session(x)
            for form, net in nets.items():
                calls["torch", form] = lambda net=net, x=images: net(x)
            last = {form: cl.create(name, conv=kind).eval() for form, kind in FORMS.items()}
            for form, net in last.items():
                net.to(memory_format=torch.channels_last)
                x = images.contiguous(memory_format=torch.channels_last)
                calls["torch channels_last", form] = lambda net=net, x=x: net(x)
            times = interleaved(calls, rounds)
            best = {form: min((way for way, f in calls if f == form), key=lambda w: middle(times[w, form]))
                    for form in FORMS}  # fmt: skip
            ways = {way: (way, way) for way, _ in calls} | {"best": (best["dense"], best["separable"])}
            print(
                f"\n{name}, {n} at once: {promised:.2f} times fewer multiply-accumulates, goal {NETWORKS.get(name)}"
            )
            print(f"{'':<22} {'dense ms':>14} {'separable ms':>14} {'speed-up':>14} {'of promise':>11}")
            for way, (one, other) in ways.items():
                dense, light = times[one, "dense"], times[other, "separable"]
                ratios = [a / b for a, b in zip(dense, light)]
                share = middle(ratios) / promised
                label = way if way != "best" else f"best: {one}" + (f", {other}" if other != one else "")
                print(f"{label:<22} {text(dense):>14} {text(light):>14} {text(ratios):>14} {share:>11.2f}")
                rows.append({
                    "network": name, "batch": n, "way": label, "dense": middle(dense), "separable": middle(light),
                    "speedup": middle(ratios), "promised": promised, "share": share,
                })  # fmt: skip
    return rows


def interleaved(calls: dict[Any, Callable[[], Any]], rounds: int) -> dict[Any, list[float]]:
    """Milliseconds, each call once a round after one that is not timed, the rounds begun with another call each."""
    names = list(calls)
    times: dict[Any, list[float]] = {name: [] for name in calls}
    for done in range(rounds):
        for i in range(len(names)):
            name = names[(done + i) % len(names)]
            calls[name]()
            start = time.perf_counter()
            calls[name]()
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


def middle(values: list[float]) -> float:
    """The median."""
    return statistics.median(values)


def text(values: list[float]) -> str:
    """The median, and half of what lies between the quartiles."""
    low, high = np.quantile(values, [0.25, 0.75])
    return f"{middle(values):.3g} ±{(high - low) / 2:.2g}"


if __name__ == "__main__":
    main()
