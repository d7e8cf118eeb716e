"""What a network costs, by convlite and by the other tools: how exact, how fast, and what each leaves behind.

    python benchmarks/cost_tools.py [--rounds 10]

Writes `benchmarks/results/cost_tools.json` and `.md`. Every tool sees each network once on the meta device, and on
the processor where it can't work there. Its figures are held against published counts, shapes seen in a real run,
and counts derived by hand (see `networks`). Times are of whole calls, in turn, each on a copy that nobody has used;
"bare" is the network's own forward on the meta device. What a tool leaves behind is looked for in a network in
training, once after a count and once after a forward that raises; whether it then counts a sound network as it did
before tells what that does to the next user. A tool that fails, fails in its own row.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import logging
import os
import sys
import time
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from cost_tools_page import page
from counters import COUNTERS, PACKAGES
from leftovers import Photograph
from networks import SIZES, Toy, copy_to, known, toy_networks
from torch import Tensor, nn

from convlite.analyse.latency import machine, timing

RESULTS = Path(__file__).parent / "results"
DEVICES = "meta", "cpu"


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")
    logging.disable()
    here = machine()
    zoo = {name: known(name) for name in SIZES}
    toys = toy_networks()
    counts = {tool: {name: counted(tool, toy) for name, toy in {**zoo, **toys}.items()} for tool in COUNTERS}
    found = {
        "machine": here.to_dict(),
        "versions": {name: installed(name) for name in PACKAGES},
        "networks": {name: {"params": toy.params, "macs": toy.macs} for name, toy in {**zoo, **toys}.items()},
        "zoo": list(zoo),
        "counts": counts,
        "left": {tool: left(tool) for tool in COUNTERS},
        "seconds": {name: seconds(toy, name, counts, rounds) for name, toy in zoo.items()},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "cost_tools.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "cost_tools.md").write_text(page(found), encoding="utf-8")
    print(page(found))


def installed(name: str) -> str:
    """A package's version."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def counted(tool: str, toy: Toy) -> dict[str, Any]:
    """What a tool counts in a network, on which device, or why it can't."""
    failure = ""
    for device in DEVICES:
        net, inputs = copy_to(toy.net, device), tuple(x.to(device) for x in toy.input)
        before = Photograph(net)
        try:
            macs, params = quietly(tool, net, inputs)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - another's tool may raise anything
            failure = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        else:
            return {"device": device, "macs": macs, "params": params}
        finally:
            before.restore()
    return {"failure": failure}


def quietly(tool: str, net: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[float, float | None]:
    """Count, with what the tool prints thrown away, from compiled code too."""
    sys.stdout.flush()
    terminal, nowhere = (os.dup(1), os.dup(2)), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        return COUNTERS[tool](net, inputs)
    finally:
        sys.stdout.flush()
        for number, kept in zip((1, 2), terminal):
            os.dup2(kept, number)
            os.close(kept)
        os.close(nowhere)


class Sound(nn.Module):
    """A convolution, a batch norm, a product that no module makes; raises if told to."""

    def __init__(self, *, fails: bool) -> None:
        super().__init__()
        self.conv, self.norm, self.last, self.fails = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Identity(), fails

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x)).flatten(2)  # (N, 4, 36)
        if self.fails:
            raise ValueError("on purpose")
        return self.last(torch.matmul(y, y.transpose(1, 2)))


def left(tool: str) -> dict[str, Any]:
    """What a tool leaves behind, in training mode and with gradients, as a user's network may be."""
    found: dict[str, Any] = {}
    count = None
    for when, fails in (("after a count", False), ("after a failure", True)):
        net, inputs = Sound(fails=fails).train(), (torch.rand(2, 3, 8, 8),)
        net.last.eval()
        before = Photograph(net)
        again = attempt(tool, net, inputs)
        count = count or again
        found[when] = before.left()
        if fails:
            net.fails = False
            again = attempt(tool, net, inputs)
            found["next count"] = again / count if again and count else None
        before.restore()
    return found if count else {"failure": "no count to compare with"}


def attempt(tool: str, net: nn.Module, inputs: tuple[Tensor, ...]) -> float | None:
    """A count, or None where the tool fails."""
    try:
        return quietly(tool, net, inputs)[0]
    except (Exception, SystemExit):  # noqa: BLE001 - another's tool may raise anything
        return None


def seconds(toy: Toy, name: str, counts: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Whole calls of every tool that can count the network, in turn, each on a fresh copy."""
    devices = {tool: found[name]["device"] for tool, found in counts.items() if "device" in found[name]}
    nets = {device: copy_to(toy.net, device) for device in DEVICES}
    inputs = {device: tuple(x.to(device) for x in toy.input) for device in DEVICES}
    names = ["bare", *devices]
    taken: dict[str, list[float]] = {one: [] for one in names}
    for turn in range(-1, rounds):  # the first to warm up
        for i in range(len(names)):
            tool = names[(turn + i) % len(names)]
            device = devices.get(tool, "meta")
            net = copy.deepcopy(nets[device])
            before = Photograph(net) if device == "meta" else Photograph(nn.Identity())
            gc.collect()
            with torch.set_grad_enabled(tool != "bare"):
                start = time.perf_counter()
                if tool == "bare":
                    net(*inputs[device])
                else:
                    quietly(tool, net, inputs[device])
                spent = time.perf_counter() - start
            before.restore()
            if turn >= 0:
                taken[tool].append(1e3 * spent)
    return {
        tool: {"device": devices.get(tool, "meta"), **timing(values).to_dict()} for tool, values in taken.items()
    }


if __name__ == "__main__":
    main()
