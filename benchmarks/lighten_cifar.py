"""A trained network made light, and beside it what others make of it with the same images, epochs and budget.

    python benchmarks/lighten_cifar.py [RUN] --data cifar10.tar.gz [--fewer 2.2 3.2 6] [--images N]
                                       [--distil EPOCHS] [--labels] [--peers] [--seeds 0 1 2] [--json FILE]
                                       [--device cuda]

RUN is the folder of a network trained with `convlite train`; left out, the ResNet-20 in bases/, made by `convlite
train --model resnet20 --data cifar10.tar.gz --recipe cifar`; beside it is bases/resnet56. All that is looked at is
N pictures of the training part without their labels (left out: all of it); the test part is scored once for each
network made, or, of a run with `--hold-out`, the pictures that were held out of it: so are settings chosen. With
`--distil` every method's network is trained for as many epochs on these pictures towards the original's outputs
(and with `--labels` towards their labels), by the same code and with the random changes of the run's own recipe,
made harder with `--labels`. The others are uniform over the layers, at the largest rank or the least pruning that
meets the budget; batch norms are measured anew for all of them.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import convlite as cl
from convlite.analyse.latency import machine
from convlite.data import Data, in_random_order
from convlite.kinds import Asymmetric, Kind, Separable
from convlite.lighten import Study, decompose
from convlite.lighten.calibrate import restate_norms_
from convlite.lighten.distil import Augment, distil_
from convlite.models.layers import Subsample
from convlite.models.saved import read_config
from convlite.models.surgery import replace_
from convlite.preprocess import Preprocess
from convlite.train import Recipe, augmentation, evaluate
from convlite.train.seeds import derive

BASE = Path(__file__).parent / "bases" / "resnet20"
PROBES = 2  # further plans that ours builds to choose among
HALVINGS = 12  # of the search for the rank that meets a budget

Make = Callable[[Study, float], nn.Module]
"""A study and the share of multiply-accumulates to keep → a lighter network with trained weights."""


def main() -> None:
    """Print a row for each budget, method and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", default=BASE)
    parser.add_argument("--data", required=True)
    parser.add_argument("--fewer", type=float, nargs="+", default=[2.2, 3.2, 6.0], metavar="TIMES")
    parser.add_argument("--images", type=int)
    parser.add_argument("--distil", type=int, default=0, metavar="EPOCHS")
    parser.add_argument("--labels", action="store_true")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    about = read_config(given.run)["about"]
    data = cl.data.load(given.data, preprocess=Preprocess.from_dict(about["preprocess"]))
    held_out = about["training"].get("held_out", [])
    for cut in held_out:
        data = data.holdout(*cut)
    recipe = Recipe.from_dict(about["training"]["recipe"])
    augment = augmentation(recipe.harder() if given.labels else recipe, data)
    net = cl.load(given.run).to(given.device)
    base, here = accuracy(net, data), machine(given.device)
    print(f"{here.processor}, {here.threads} threads, torch {here.torch}, load {here.load}")
    how = f"--distil {given.distil}{' --labels' if given.labels else ''}"
    part = "held-out" if held_out else "test"
    print(f"{given.run.name}: {100 * base:.2f}% on {len(data.test)} {part} pictures; {how}\n")
    print("fewer MACs  method              seed  accuracy  change  seconds")
    rows = []
    for seed in given.seeds:
        begun = time.perf_counter()
        known = cl.study(net, pictures(data, seed, given.images), labelled=given.labels, seed=seed)
        studied = time.perf_counter() - begun
        methods = {"convlite": ours}
        if given.peers:
            methods |= {name: partial(theirs, make) for name, make in PEERS.items()}
        for times in given.fewer:
            for name, method in methods.items():
                begun = time.perf_counter()
                light = method(known, 1 / times, given.distil, augment, seed)
                seconds = time.perf_counter() - begun + (studied if name == "convlite" else 0.0)
                kept = cl.analyse(light, known.survey.input).macs / known.survey.cost.macs
                score = accuracy(light, data)
                print(
                    f"{1 / kept:9.2f}×  {name:<18}  {seed:>4}  {100 * score:7.2f}%  {100 * (score - base):+6.2f}"
                    f"  {seconds:7.1f}",
                    flush=True,
                )
                rows.append({
                    "fewer": 1 / kept, "method": name, "seed": seed, "accuracy": score, "base": base,
                    "seconds": seconds, "images": known.images, "distil": given.distil, "labels": given.labels,
                })  # fmt: skip
                if given.json:
                    given.json.write_text(json.dumps({"machine": here.to_dict(), "rows": rows}, indent=1) + "\n")


def pictures(data: Data, seed: int, count: int | None) -> list[tuple[Tensor, Tensor]]:
    """Of the training part, drawn at random, as the network takes them, and labels: (N, C, H, W) and (N,)."""
    images, order = in_random_order(data.train, derive(seed, "calibration"))
    parts = [(data.normalise(part.pixels), part.labels) for part in images.parts(order[:count].split(1024))]
    pixels, labels = zip(*parts)
    return [(torch.cat(pixels), torch.cat(labels))]  # one batch: of more, so many would not all be kept


def accuracy(net: nn.Module, data: Data) -> float:
    """Top-1 on the test part."""
    return evaluate(net, data.test, data, progress=False).top1


def ours(known: Study, share: float, epochs: int, augment: Augment, seed: int) -> nn.Module:
    """What this benchmark is about."""
    budget = cl.Budget(macs=share)
    return cl.lighten(known, None, budget, probes=PROBES, distil=epochs, augment=augment, seed=seed).model


def theirs(make: Make, known: Study, share: float, epochs: int, augment: Augment, seed: int) -> nn.Module:
    """A peer's network, with its batch norms measured anew, distilled as ours is; undone as ours would be."""
    light = make(known, share).eval()
    restate_norms_(light, known.sample.images)
    if not epochs:
        return light
    before = copy.deepcopy(light)
    distil_(light, known.original, known.trained, epochs=epochs, seed=seed, augment=augment)
    return light if known.trained.labels is not None else min((light, before), key=known.unseen.error)


def decomposed(known: Study, share: float, ranks: Callable[[float], Callable[[cl.kinds.Conv], Kind]]) -> nn.Module:
    """Every 3×3 layer but the first to the same share of its full rank, from its weights alone."""
    layers = {path: layer for path, layer in list(known.survey.layers.items())[1:] if min(layer.conv.k) > 1}
    whole = known.survey.cost.macs

    def kinds(rank: float) -> dict[str, Kind]:
        chosen = {path: ranks(rank)(layer.conv) for path, layer in layers.items()}
        return {
            path: kind
            for path, kind in chosen.items()
            if layers[path].cost(kind).macs < layers[path].cost(None).macs
        }

    def macs(rank: float) -> float:
        return whole - sum(
            layers[path].cost(None).macs - layers[path].cost(kind).macs for path, kind in kinds(rank).items()
        )

    rank = largest(lambda rank: macs(rank) <= share * whole)
    return replace_(
        copy.deepcopy(known.original), kinds(rank), lambda path, conv, kind: decompose(conv, kind)[0]
    ).requires_grad_(True)


def spatial_svd(known: Study, share: float) -> nn.Module:
    """K×1 then 1×K (Jaderberg et al., arXiv 1405.3866)."""
    return decomposed(
        known,
        share,
        lambda rank: lambda conv: Asymmetric(max(1, round(rank * min(conv.c * conv.k[0], conv.m * conv.k[1])))),
    )


def decoupling(known: Study, share: float) -> nn.Module:
    """Sums of depthwise separable terms (Guo et al., arXiv 1808.05517)."""
    return decomposed(
        known, share, lambda rank: lambda conv: Separable(multiplier=max(1, round(rank * conv.k[0] * conv.k[1])))
    )


def tucker(known: Study, share: float) -> nn.Module:
    """tltorch's factorised convolution."""
    import tltorch

    def factorised(rank: float, *, real: bool) -> nn.Module:
        light = copy.deepcopy(known.original).requires_grad_(True)
        for path, layer in list(known.survey.layers.items())[1:]:
            if min(layer.conv.k) > 1:
                conv = light.get_submodule(path)
                made = tltorch.FactorizedConv.from_conv(
                    conv, rank=rank, factorization="tucker", implementation="factorized", decompose_weights=real
                )
                light.set_submodule(path, made)
        return light

    whole = known.survey.cost.macs
    rank = largest(lambda rank: cl.analyse(factorised(rank, real=False), known.survey.input).macs <= share * whole)
    return factorised(rank, real=True)


def pruned(known: Study, share: float) -> nn.Module:
    """torch-pruning's group-norm pruner, over the whole network.

    It can't follow a shortcut that pads channels; as a 1×1 convolution that does the same it can.
    """
    import networks  # noqa: F401  declares the operators that torchvision, which torch-pruning imports, needs
    import torch_pruning

    dense = copy.deepcopy(known.original)
    for path, module in list(dense.named_modules()):
        if isinstance(module, Subsample):
            dense.set_submodule(
                path, as_conv(module, dense.get_submodule(f"{path.rpartition('.')[0]}.branch.unit1.conv"))
            )

    example = known.sample.images[:1].contiguous()

    def cut(keep: float) -> nn.Module:
        light = copy.deepcopy(dense).requires_grad_(True)
        last = [module for module in light.modules() if isinstance(module, nn.Linear)]
        torch_pruning.pruner.GroupNormPruner(
            light,
            example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            global_pruning=True,
            pruning_ratio=1 - keep,
            ignored_layers=last[-1:],
        ).step()
        return light

    whole = known.survey.cost.macs
    return cut(largest(lambda keep: cl.analyse(cut(keep), known.survey.input).macs <= share * whole))


def as_conv(shortcut: Subsample, beside: nn.Conv2d) -> nn.Conv2d:
    """The 1×1 convolution with ones and zeros that skips and pads as the shortcut does."""
    channels, extra = beside.in_channels, shortcut.extra_channels
    conv = nn.Conv2d(channels, channels + extra, 1, stride=shortcut.stride, bias=False, device=beside.weight.device)
    with torch.no_grad():
        conv.weight.copy_(torch.eye(channels + extra)[:, extra // 2 : extra // 2 + channels, None, None])
    return conv


def largest(fits: Callable[[float], bool]) -> float:
    """The largest share in (0, 1) that fits, where all smaller ones do."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


PEERS: dict[str, Make] = {
    "spatial SVD": spatial_svd,
    "network decoupling": decoupling,
    "tltorch Tucker": tucker,
    "torch-pruning": pruned,
}

if __name__ == "__main__":
    main()
