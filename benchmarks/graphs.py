"""Images a second of training on a GPU, input and step together, with recorded steps and without, in turn.

    python benchmarks/graphs.py [--models resnet20 xception_small] [--batch-size 128] [--rounds 3]

In bfloat16, on random pictures of 32x32, with the recipe `cifar` at their whole size. A row for each network:
the medians, and of each round how many times as fast the recorded steps were.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace

import torch

import convlite as cl
from convlite.analyse.latency import machine
from convlite.data import Data, Images
from convlite.preprocess import Preprocess
from convlite.train import Compute, recipe, train

COUNT = 4096  # pictures


def speed(model: str, batch: int, *, graphs: bool) -> float:
    """Images a second of the third epoch; the others warm up, or record."""
    source = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (COUNT, 3, 32, 32), dtype=torch.uint8, generator=source)
    images = Images(pixels, torch.randint(10, (COUNT,), generator=source))
    how = Preprocess((32, 32), (0.5,) * 3, (0.25,) * 3)
    data = Data(images, images[:1], tuple(map(str, range(10))), how, "random")
    chosen = replace(recipe("cifar"), epochs=3, batch_size=batch, first_size=1.0)
    compute = Compute("cuda", "bf16", graphs=graphs)
    return train(cl.create(model), data, chosen, compute=compute, progress=False).last.images_per_second


def main() -> None:
    """Print a row for each network."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--models", nargs="+", default=["resnet20", "xception_small"])
    asked.add_argument("--batch-size", type=int, default=128)
    asked.add_argument("--rounds", type=int, default=3)
    given = asked.parse_args()
    here = machine("cuda")
    print(f"{here.processor}, torch {here.torch}, batch {given.batch_size}\n")
    print("network             as it is  recorded  times as fast")
    for model in given.models:
        found: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(given.rounds):
            for graphs, speeds in found.items():
                speeds.append(speed(model, given.batch_size, graphs=graphs))
        plain, recorded = (statistics.median(found[graphs]) for graphs in (False, True))
        ratios = " ".join(f"{b / a:.2f}" for a, b in zip(found[False], found[True], strict=True))
        print(f"{model:<18} {plain:9,.0f} {recorded:9,.0f}  {ratios}", flush=True)


if __name__ == "__main__":
    main()
