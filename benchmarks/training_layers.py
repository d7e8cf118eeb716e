"""A step's work on convolutions of small groups, and on those of small maps: torch's own beside convlite's.

    python benchmarks/training_layers.py

Each row is one layer with channels last, timed in turn in one run: the output, then what is learnt of images and
weights. Whole networks last: a ResNet-20 whose 3×3 layers are sliced low rank ones (groups, then 1×1), a VGG-16.
"""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

import convlite as cl
from convlite.analyse.latency import machine, measure
from convlite.kernels import convolutions
from convlite.train.allocator import keep_freed_memory

LAYERS = [  # N, C, M, H=W, K, groups
    (128, 16, 16, 32, 3, 4),
    (128, 16, 16, 32, 3, 8),
    (128, 32, 32, 16, 3, 8),
    (128, 64, 64, 8, 3, 32),
    (128, 16, 32, 32, 3, 16),
    (8, 64, 64, 56, 5, 64),
    (8, 64, 64, 56, 7, 64),
    (128, 256, 512, 4, 3, 1),
    (128, 512, 512, 4, 3, 1),
    (128, 512, 512, 2, 3, 1),
]


def main() -> None:
    """Print the table."""
    keep_freed_memory()  # as in training: or else clearing pages anew is most of what is timed
    here = machine()
    print(f"{here.processor}, {here.threads} threads, torch {here.torch}, load {here.load}")
    print(f"{'layer':<40} {'torch ms':>16} {'ours ms':>16} {'ratio':>7}")
    for n, c, m, size, k, groups in LAYERS:
        layer = nn.Conv2d(c, m, k, padding=k // 2, groups=groups, bias=False)
        name, x = f"{n}×{c}×{size}×{size} to {m}, {k}×{k}", torch.randn(n, c, size, size)
        if groups > 1:
            row(f"{name}, {groups} groups", layer, x)
        else:
            row(name, layer, x)
            row(f"{name}, bf16", layer, x, bf16=True)
    light = cl.create("resnet20", num_classes=10, conv=cl.kinds.LowRank(rank=16, slices=8))
    row("128×3×32×32, resnet20 of LowRank(16, 8)", light, torch.randn(128, 3, 32, 32))
    vgg = cl.create("vgg16_bn", num_classes=10, hidden=[])
    row("128×3×32×32, vgg16_bn, bf16", vgg, torch.randn(128, 3, 32, 32), bf16=True)


def row(name: str, net: nn.Module, x: Tensor, *, bf16: bool = False) -> None:
    """A line of the table."""
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = x.to(memory_format=torch.channels_last).requires_grad_()

    def step(*, ours: bool) -> Callable[[], object]:
        def run() -> None:
            with convolutions(net) if ours else nullcontext():
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    y = net(x)
                y.float().square().sum().backward()

        return run

    found = measure({"torch": step(ours=False), "ours": step(ours=True)}, rounds=30, seconds=8)
    texts = [f"{t.median:.2f} ±{(t.q3 - t.q1) / 2:.2f}" for t in found.values()]
    print(
        f"{name:<40} {texts[0]:>16} {texts[1]:>16} {found['torch'].median / found['ours'].median:>6.1f}×",
        flush=True,
    )


if __name__ == "__main__":
    main()
