"""How the time and the memory of a count grow with the number of layers, and with that of the parameters.

    python benchmarks/cost_scale.py

Chains of 3×3 convolutions on the meta device; milliseconds as median ± half the middle 50% of runs in turn, memory
as the most that Python's objects took (nothing else is allocated there).
"""

import tracemalloc

import torch
from torch import nn

import convlite as cl
from convlite.analyse.latency import machine, measure

CHAINS = [(500, 16), (1000, 16), (2000, 16), (28, 16), (28, 2048)]  # layers, channels


def chain(layers: int, channels: int) -> nn.Module:
    """Convolutions without data."""
    with torch.device("meta"):
        return nn.Sequential(*(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(layers)))


def main() -> None:
    """Print the table."""
    here = machine()
    print(f"{here.processor}, {here.threads} threads, torch {here.torch}, load {here.load}")
    counts = {
        (layers, channels): (lambda net=chain(layers, channels), c=channels: cl.analyse(net, (c, 14, 14)))
        for layers, channels in CHAINS
    }
    found = measure({str(key): count for key, count in counts.items()}, rounds=15)
    print(f"{'layers':>7} {'parameters':>14} {'ms':>15} {'ms a layer':>11} {'MiB':>6}")
    for (layers, channels), count in counts.items():
        time = found[str((layers, channels))]
        tracemalloc.start()
        params = count().params
        memory = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        text = f"{time.median:.1f} ±{(time.q3 - time.q1) / 2:.1f}"
        print(f"{layers:>7} {params:>14,} {text:>15} {time.median / layers:>11.3f} {memory:>6.1f}")


if __name__ == "__main__":
    main()
