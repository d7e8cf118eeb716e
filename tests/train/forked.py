"""Training in processes of their own, which a test can kill; forked from one that has imported torch already."""

import json
import multiprocessing
import os
import resource
import signal
import socket
from pathlib import Path

import accelerate
import bars
import torch
from bars import data, network

from convlite.models import create
from convlite.train import Classification, Compute, Keep, Recipe, evaluate, train

RECIPE = Recipe(epochs=3, batch_size=20, rate=0.1, shift=1, average=0.9, optimiser="nesterov")
CPU = Compute("cpu" if torch.accelerator.is_available() else None)  # without a GPU, both mean the same
PROCESSES = multiprocessing.get_context("forkserver")
# With what torch itself imports at its first step.
PROCESSES.set_forkserver_preload(["accelerate", "torch._dynamo", "convlite.train", "bars", "forked"])


def job(folder, recipe=RECIPE, env=None, limit=None, steps=1, network=network, stop=None):
    """Train the little network in `folder`, going on if something is there; asked to stop in that step."""
    torch.set_num_threads(1)
    os.environ.update(env or {})
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    def interrupt(inputs, logits, labels):
        calls.append(1)
        if len(calls) == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return torch.nn.functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)

    calls = []
    train(
        network(), data(), recipe, out=folder, resume=True, compute=CPU, keep=Keep(steps=steps),
        progress=False, task=Classification(interrupt if stop else None),
    )  # fmt: skip


def plain():
    """Without dropout, whose draws are each process's own."""
    return bars.network(dropout=0.0)


def unnormed():
    """Without batch norms too, which see a part of a step's images only."""
    return bars.network(dropout=0.0, norm=torch.nn.Identity)


class Wide(torch.nn.Module):
    """A family in double precision, which sees no rounding grow."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = create("xception_small", num_classes=3, width=0.25, depth=1).double()
        self.net.set_dropout_(0.0)

    def forward(self, x):
        return self.net(x.double())


def start(*arguments, target=job, **options):
    process = PROCESSES.Process(target=target, args=arguments, kwargs=options)
    process.start()
    return process


def measure(file, env):
    """Every process writes down the score it gets of all images."""
    os.environ.update(env)
    accelerate.PartialState(cpu=True)
    small, net = data(), network()
    scores = [evaluate(net, small.test[:count], small, batch_size=8).to_dict() for count in (50, 48, 7, 1)]
    Path(f"{file}{env['RANK']}").write_text(json.dumps(scores))


def together(count, *arguments, target=job, **options):
    """As torchrun starts them: one number each, and a port to meet at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": "1",
    }
    found = [
        start(
            *arguments,
            env={**common, "RANK": str(i), "LOCAL_RANK": str(i), "LOCAL_WORLD_SIZE": str(count)},
            target=target,
            **options,
        )
        for i in range(count)
    ]
    for process in found:
        process.join(60)
    return [process.exitcode for process in found]
