"""Images a second of training Xception: convlite, beside a plain loop around timm's legacy_xception, in turn.

    python benchmarks/training_step.py --rounds 3

Each round is a process of its own, since the allocator's settings are a process's; the batch, the type of numbers,
the optimiser and the number of threads are the same. convlite is measured in its whole loop, input and all; the
plain loop, in torch's default layout and with channels last, has its pixels at hand.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

RATE, MOMENTUM, DECAY = 0.01, 0.9, 1e-5
WAYS = ("timm", "timm channels_last", "convlite")


def plain(channels_last: bool, size: int, batch: int, steps: int) -> float:
    """A loop as its users write it; images a second after two steps."""
    import networks  # noqa: F401 - lets torchvision be imported, which timm asks for
    import timm

    layout = torch.channels_last if channels_last else torch.contiguous_format
    net = timm.create_model("legacy_xception", num_classes=10).train().to(memory_format=layout)
    optimiser = torch.optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True)
    pixels = torch.rand(batch, 3, size, size).contiguous(memory_format=layout)
    labels = torch.randint(0, 10, (batch,))
    for step in range(steps + 2):
        if step == 2:
            begun = time.perf_counter()
        optimiser.zero_grad()
        loss = F.cross_entropy(net(pixels), labels)
        loss.backward()
        optimiser.step()
        loss.item()
    return batch * steps / (time.perf_counter() - begun)


def ours(size: int, batch: int, steps: int) -> float:
    """The whole loop of `train`, its second epoch."""
    import convlite as cl
    from convlite.data import Data, Images
    from convlite.preprocess import Preprocess
    from convlite.train import Compute, Recipe, train

    count = batch * steps
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    images = Images(pixels, torch.arange(count) % 10)
    how = Preprocess((size, size), (0.5,) * 3, (0.5,) * 3)
    data = Data(images, images[:1], tuple("0123456789"), how, "random")
    recipe = Recipe(
        epochs=2, batch_size=batch, rate=RATE, momentum=MOMENTUM, weight_decay=DECAY, label_smoothing=0.0, flip=True
    )
    net = cl.create("xception", num_classes=10)
    return train(net, data, recipe, compute=Compute("cpu"), progress=False).last.images_per_second


def once(way: str, given: argparse.Namespace) -> float:
    """One way in a process of its own."""
    numbers = [f"--{name.replace('_', '-')}={value}" for name, value in vars(given).items()]
    found = subprocess.run(
        [sys.executable, __file__, *numbers, "--only", way], check=True, capture_output=True, text=True
    )
    return float(found.stdout.splitlines()[-1])


def main() -> None:
    """Print one JSON object: the median images a second of each way, every round's, and ours by the fastest's."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--threads", type=int, default=2)
    asked.add_argument("--size", type=int, default=299)
    asked.add_argument("--batch", type=int, default=8)
    asked.add_argument("--steps", type=int, default=5)
    asked.add_argument("--only", choices=WAYS, help="print this way's images a second alone")
    given = asked.parse_args()
    torch.set_num_threads(given.threads)
    only = given.only
    del given.only
    if only is not None:
        measured = (given.size, given.batch, given.steps)
        print(ours(*measured) if only == "convlite" else plain("last" in only, *measured))
        return
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(given.rounds):
        for way, speeds in found.items():
            speeds.append(round(once(way, given), 3))
    medians = {way: statistics.median(speeds) for way, speeds in found.items()}
    peer = max(medians[way] for way in WAYS[:2])
    each = [a / max(b, c) for a, b, c in zip(found["convlite"], found["timm"], found["timm channels_last"])]
    ratio = {"convlite / the faster plain loop": round(medians["convlite"] / peer, 3), "each round": sorted(each)}
    print(json.dumps({**vars(given), "images_per_second": medians, "rounds_of_each": found, **ratio}, indent=1))


if __name__ == "__main__":
    main()
