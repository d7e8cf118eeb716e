"""Milliseconds: of every option in its layer's place, and of whole networks, on the engine that will run them."""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..analyse import measure
from ..errors import InputError, need
from ..kinds import Conv, Kind
from ..runtime import export, open_engine, optimise, why_not
from ..runtime.engines import load, runs_modules, threads_of
from .answers import float_outputs
from .plan import Budget, Option

ROUNDS, SECONDS = (9, 30), (0.05, 5)  # of the timed runs of a layer, and of a network, at most
SETTLE = 3  # runs of a network before a timed one
DISTURBED, AGAIN, PAUSE = 1.05, 4, 5.0  # what else runs on a shared machine often does so for half a minute
TOGETHER = 8  # layers timed in turn, so that each meets the same state of the machine
OPSET = 17  # of the graphs of single layers


def check_engine(budget: Budget) -> None:
    """See that a latency can be measured, where the budget has one.

    Raises:
        InputError: the engine can't be used here.
    """
    if budget.latency_ms is None:
        return
    reason = why_not(budget.engine)
    if reason is None and budget.engine == "executorch":
        reason = "a file for it takes seconds to make, and hundreds of layers are timed; name another engine"
    if reason is not None:
        raise InputError(f"Latency can't be measured on {budget.engine}: {reason}.")


def layer_times(
    options: Mapping[str, Sequence[Option]],
    calls: Mapping[str, Sequence[Conv]],
    budget: Budget,
    say: Callable[[str], object] = lambda text: None,
) -> dict[tuple[str, Kind | None], float]:
    """Milliseconds of every option, over all calls of its layer, each alone on the budget's engine.

    Layers of the same sizes are timed once.

    Arguments:
        calls: path → the layer, each time it runs for one image.
    """
    wanted = {(conv, option.kind) for path, each in options.items() for option in each for conv in calls[path]}
    keys = sorted(wanted, key=repr)
    known: dict[tuple[Conv, Kind | None], float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, len(keys), TOGETHER):
            say(f"timing layers on {budget.engine}, {start} of {len(keys)}")
            some = keys[start : start + TOGETHER]
            runs = {
                str(i): _runs(kind.layers(conv) if kind else (conv,), budget, Path(folder))
                for i, (conv, kind) in enumerate(some)
            }
            found = measure(runs, rounds=ROUNDS[0], seconds=SECONDS[0] * len(some), minimum=3)
            known |= {key: timing.median for key, timing in zip(some, found.values())}
    return {
        (path, option.kind): sum(known[conv, option.kind] for conv in calls[path])
        for path, each in options.items()
        for option in each
    }


@contextmanager
def opened(net: nn.Module, shape: tuple[int, ...], budget: Budget) -> Iterator[Callable[[], object]]:
    """What runs a whole network for one batch on the budget's engine, in the form in which it is run there.

    Raises:
        InputError: the engine can't be used here, or can't express the network.
    """
    images = np.random.default_rng(0).standard_normal((budget.batch, *shape), dtype=np.float32)
    single = _Single(copy.deepcopy(net).cpu().eval())
    with tempfile.TemporaryDirectory() as folder:
        if runs_modules(budget.engine):
            source: Any = optimise(single, torch.zeros(2, *shape))
        else:
            source = export(single, Path(folder) / "network.onnx", (shape[0], shape[1], shape[2])).path
        yield partial(open_engine(source, budget.engine, threads=budget.threads), images)  # may read it later


def network_times(*runs: Callable[[], object], usual: float = math.inf) -> list[float]:
    """Milliseconds of what `opened` gives, timed in turn: what changes the machine's speed meets all alike.

    Arguments:
        usual: what the first took before. Where it takes DISTURBED times as much now, something else ran beside it,
            which some networks mind more than others: after a PAUSE all are timed again, AGAIN times at most, and
            the times by which it took least are returned.
    """
    found = []
    for i in range(1 + AGAIN):
        time.sleep(PAUSE if i else 0)
        some = measure(dict(enumerate(runs)), rounds=ROUNDS[1], seconds=SECONDS[1] * len(runs), settle=SETTLE)
        found.append([timing.median for timing in some.values()])
        if found[-1][0] <= DISTURBED * usual:
            break
    return min(found)


class _Single(nn.Module):
    """A network whose outputs are averaged into one number an image, so that every engine can be asked for it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N,)
        return torch.stack([out.flatten(1).mean(1) for out in float_outputs(self.net(x))]).sum(0)


def _runs(chain: Sequence[Conv], budget: Budget, folder: Path) -> Callable[[], object]:
    """What runs a chain of convolutions, and a ReLU after it as mostly, on a random input."""
    first = chain[0]
    images = np.random.default_rng(0).standard_normal((budget.batch, first.c, first.h, first.w), dtype=np.float32)
    if runs_modules(budget.engine):
        layer = nn.Sequential(*(conv.build() for conv in chain), nn.ReLU()).eval()
        return partial(open_engine(layer, budget.engine, threads=budget.threads), images)
    file = _graph(chain, budget.batch, folder / "layer.onnx")
    return partial(load(file, budget.engine, "fp32", threads_of(budget.threads)), images)


def _graph(chain: Sequence[Conv], batch: int, path: Path) -> Path:
    """A file with the convolutions one after the other, of random weights."""
    onnx = need("onnx", "ship")
    make, tensor = onnx.helper, onnx.TensorProto.FLOAT
    random = np.random.default_rng(0)
    nodes, weights = [], []
    for i, conv in enumerate(chain):
        shape = (conv.m, conv.c // conv.groups, *conv.k)
        weights.append(onnx.numpy_helper.from_array(random.standard_normal(shape, dtype=np.float32), f"w{i}"))
        nodes.append(
            make.make_node(
                "Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"], pads=_pads(conv), group=conv.groups,
                strides=conv.stride, dilations=conv.dilation,
            )
        )  # fmt: skip
    nodes.append(make.make_node("Relu", [f"x{len(chain)}"], ["y"]))
    ends = [
        make.make_tensor_value_info(name, tensor, (batch, channels, *size))
        for name, channels, size in (
            ("x0", chain[0].c, (chain[0].h, chain[0].w)),
            ("y", chain[-1].m, chain[-1].out_size),
        )
    ]
    graph = make.make_graph(nodes, "layer", ends[:1], ends[1:], weights)
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", OPSET)], ir_version=8), path)
    return path


def _pads(conv: Conv) -> list[int]:
    """ONNX wants those before, then those after; what stands in them costs the same."""
    if conv.padding == "same":
        extents = conv.extent(0), conv.extent(1)
        return [*(extent // 2 for extent in extents), *(extent - extent // 2 for extent in extents)]
    return [*conv.padding, *conv.padding]
