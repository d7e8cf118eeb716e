"""Pictures from files to a network's input: `convlite` beside torch's `DataLoader` with Pillow and torchvision.

    python benchmarks/loader.py photos.tar

`photos.tar` is any folder or tar archive of JPEG photographs. Both loaders take random parts of at least 8% of
their area, scaled to 224x224 and mirrored at random, as float32 batches of 32 normalised with ImageNet's numbers,
with two workers: processes there, threads here. A round is an epoch over some 800 files, the photographs several
times; rounds alternate, and the ratio is that of two neighbours. Last, the same parts of the photographs are
compared, pixel by pixel, with those that Pillow makes.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader

from convlite.analyse.latency import machine
from convlite.data import Data, load
from convlite.data.archives import tar
from convlite.data.encoded import content_of
from convlite.data.pictures import SUFFIXES
from convlite.preprocess import IMAGENET, Preprocess
from convlite.train import Recipe
from convlite.train.allocator import keep_freed_memory
from convlite.train.augment import random_part
from convlite.train.batches import batches

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from peers import _torchvision

SIZE, BATCH, WORKERS, ROUNDS, PICTURES = 224, 32, 2, 8, 800
RECIPE = Recipe(batch_size=BATCH, shift=0, flip=True, crop=0.08)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", type=Path, help="a folder or tar archive of photographs")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    torch.set_num_threads(1)  # for both: the work is in the workers
    keep_freed_memory()  # for both, as in training
    with tempfile.TemporaryDirectory() as folder:
        count = unpack(given.photos, Path(folder))
        how = Preprocess((SIZE, SIZE), *IMAGENET)
        data = load(folder, preprocess=how, in_memory=False)
        loaders = {"DataLoader": plain(Path(folder)), "convlite": lambda epoch: ours(data, epoch)}
        rates: dict[str, list[float]] = {name: [] for name in loaders}
        for epoch in range(given.rounds + 1):  # the first to warm up
            for name, run in loaders.items():
                begun = time.perf_counter()
                seen = run(epoch)
                rates[name].append(seen / (time.perf_counter() - begun))
        difference = [abs_difference(data, i) for i in range(0, len(data.train), max(1, len(data.train) // 100))]
    here = machine()
    print(f"{count} photographs, {WORKERS} workers, {given.rounds} rounds")
    print(f"{here.processor}, {os.cpu_count()} CPUs, load {here.load}, torch {here.torch}")
    for name, found in rates.items():
        print(f"{name:<11} {spread(found[1:])} images/s")
    ratios = [ours / theirs for ours, theirs in zip(rates["convlite"][1:], rates["DataLoader"][1:], strict=True)]
    print(f"ratio       {spread(ratios, 2)} (median ± half the middle 50%)")
    mean, most = statistics.fmean(difference), max(difference)
    print(f"pixels differ from Pillow's by {mean:.2f} of 255 on average, in one picture by {most:.2f}")


def unpack(photos: Path, folder: Path) -> int:
    """Put the photographs into two classes of train and test; return how many they are."""
    if photos.is_dir():
        paths = [path for path in sorted(photos.rglob("*")) if path.suffix.lower() in SUFFIXES]
        found = {path.name: path.read_bytes() for path in paths}
    else:
        found = {name.replace("/", "-"): content_of(file) for name, file in sorted(tar(photos).files.items())}
    for part, copies in {"train": -(-PICTURES // len(found)), "test": 1}.items():
        for number, (name, content) in enumerate(found.items()):
            for copy in range(copies):
                path = folder / part / "ab"[number % 2] / f"{copy}-{name}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    return len(found)


def plain(folder: Path) -> Callable[[int], int]:
    """An epoch of torch's DataLoader over torchvision's ImageFolder, as in its ImageNet example."""
    _torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchvision import transforms
        from torchvision.datasets import ImageFolder

    steps = [
        transforms.RandomResizedCrop(SIZE),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(*IMAGENET),
    ]
    images = ImageFolder(str(folder / "train"), transforms.Compose(steps))
    loader = DataLoader(images, BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True)
    return lambda epoch: sum(len(pixels) for pixels, _ in loader)


def ours(data: Data, epoch: int) -> int:
    """An epoch of ours."""
    found = batches(data.train, RECIPE, 0, epoch, torch.device("cpu"), workers=WORKERS)
    return sum(len(data.normalise(pixels)) for pixels, _ in found)


def abs_difference(data: Data, index: int) -> float:
    """Between a part as we decode it and as Pillow does, on average over its pixels."""
    window = random_part(RECIPE.crop, 0, 0)(index)
    pixels, _ = data.train.read(index, window)
    with Image.open(data.train.files[data.train._at(index)]) as image:
        whole = image.convert("RGB")
    top, left, height, width = window(whole.height, whole.width)
    part = whole.crop((left, top, left + width, top + height)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    theirs = torch.frombuffer(bytearray(part.tobytes()), dtype=torch.uint8).view(SIZE, SIZE, 3).permute(2, 0, 1)
    return float((pixels.float() - theirs.float()).abs().mean())


def spread(values: list[float], digits: int = 0) -> str:
    """Median ± half the middle 50%."""
    q1, median, q3 = statistics.quantiles(values, n=4)
    return f"{median:.{digits}f} ± {(q3 - q1) / 2:.{digits}f}"


if __name__ == "__main__":
    main()
