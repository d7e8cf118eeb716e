"""Several small kernels in place of a large one."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import InputError
from .chain import Between, Chain, Padding, PaddingMode, Size, pair


class StackedConv2d(Chain):
    """Several 3×3 in place of one larger odd kernel: two for 5×5 (Simonyan & Zisserman, arXiv 1409.1556).

    The stride is the last one's; padding is shared out evenly.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        *,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: Any = None,
        dtype: Any = None,
        between: Between = None,
    ) -> None:
        rest: Any = {"padding_mode": padding_mode, "device": device, "dtype": dtype}
        kernel, spread = pair(kernel_size), pair(dilation)
        reach = [(k - 1) // 2 for k in kernel]  # how many 3-wide kernels each direction needs
        count = max(reach)
        if count < 2 or kernel[0] % 2 == 0 or kernel[1] % 2 == 0:
            raise InputError(f"Stacked 3×3 need an odd kernel of 5 or more, given {kernel[0]}×{kernel[1]}.")
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise InputError(f"Padding must be numbers, 'same' or 'valid', given {padding!r}.")
            padding = (spread[0] * reach[0], spread[1] * reach[1]) if padding == "same" else 0
        total = pair(padding)
        layers: dict[str, nn.Module] = {}
        for i in range(count):
            last = i == count - 1
            layers[f"conv{i + 1}"] = nn.Conv2d(
                in_channels if i == 0 else out_channels,
                out_channels,
                (3 if i < reach[0] else 1, 3 if i < reach[1] else 1),
                stride if last else 1,
                (share(total[0], reach[0], i), share(total[1], reach[1], i)),
                spread,
                bias=bias and last,
                **rest,
            )
        super().__init__(layers, between)


def share(total: int, parts: int, index: int) -> int:
    """Part `index` of `total` shared out over `parts` as evenly as whole numbers allow; 0 beyond them."""
    parts = max(1, parts)  # a direction that needs no kernel is still padded, by the first
    return (index + 1) * total // parts - index * total // parts if index < parts else 0
