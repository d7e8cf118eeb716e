"""A depthwise convolution with several outputs a channel: `nn.Conv2d` beside `convlite.nn.DepthwiseConv2d`.

    python benchmarks/depthwise.py

Both compute the same, but for the order of the channels. Each row is one shape, timed in turn in one run, forward,
in inference mode.
"""

import torch
from torch import nn

from convlite.analyse.latency import machine, measure
from convlite.nn import DepthwiseConv2d
from convlite.train.allocator import keep_freed_memory

SHAPES = [(1, 256, 28, 2), (1, 64, 56, 4), (16, 32, 16, 2), (64, 16, 32, 2), (64, 64, 8, 3)]  # N, C, H=W, r


def main() -> None:
    """Print the table."""
    keep_freed_memory()  # as in training: or else clearing pages anew is most of what is timed
    here = machine()
    print(f"{here.processor}, {here.threads} threads, torch {here.torch}, load {here.load}")
    print(
        f"{'N':>3} {'C':>4} {'H=W':>4} {'r':>2}  {'layout':<18} {'nn.Conv2d ms':>16} {'ours ms':>16} {'ratio':>7}"
    )
    for n, c, size, r in SHAPES:
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(n, c, size, size).to(memory_format=layout)
            layers = {
                "plain": nn.Conv2d(c, r * c, 3, padding=1, groups=c, bias=False),
                "ours": DepthwiseConv2d(c, r * c, 3, padding=1, groups=c, bias=False),
            }
            with torch.inference_mode():
                calls = {
                    name: (lambda layer=layer.to(memory_format=layout), x=x: layer(x))
                    for name, layer in layers.items()
                }
                found = measure(calls, rounds=40, seconds=5)
            texts = [f"{t.median:.3f} ±{(t.q3 - t.q1) / 2:.3f}" for t in found.values()]
            ratio = found["plain"].median / found["ours"].median
            name = str(layout).removeprefix("torch.")
            print(f"{n:>3} {c:>4} {size:>4} {r:>2}  {name:<18} {texts[0]:>16} {texts[1]:>16} {ratio:>6.1f}×")


if __name__ == "__main__":
    main()
