"""Dense maps from any network: dilation in the place of strides (Chen et al., DeepLab, arXiv 1606.00915)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..errors import InputError
from .backbone import Backbone
from .layers import Subsample
from .pools import AvgPool2d, pair

Sliding = nn.Conv2d | nn.MaxPool2d | AvgPool2d | Subsample
_PROBE = 4096  # pixels; large beside the few that unpadded convolutions cut off


def dilate_(net: Backbone, output_stride: int) -> None:
    """Let no map be smaller than 1/`output_stride` of the image, in place; weights and their number stay.

    A layer whose input was at stride a > `output_stride` now sees it at `output_stride`: it is dilated by
    a / `output_stride`, so that each of its outputs is computed from the same pixels as before. Every
    (a / `output_stride`)-th pixel of the new map is a pixel of the old one.

    Raises:
        InputError: the network has no such stride.
    """
    strides = sorted({1, *net.strides})
    if output_stride not in strides:
        raise InputError(f"output_stride must be one of {strides} for this network, given {output_stride}.")
    for layer, before in _input_strides(net).items():
        rate = max(1, before // output_stride)
        free = max(1, output_stride // before)  # what this layer may still stride
        down, across = pair(layer.stride)
        layer.stride = (min(down, free), min(across, free))
        if rate > 1 and not isinstance(layer, Subsample) and max(pair(layer.kernel_size)) > 1:
            _dilate_(layer, rate)
    net.taps = {path: (c, min(stride, output_stride)) for path, (c, stride) in net.taps.items()}


def _dilate_(layer: nn.Conv2d | nn.MaxPool2d | AvgPool2d, rate: int) -> None:
    layer.dilation = _times(layer.dilation, rate)
    if isinstance(layer.padding, str):
        return
    layer.padding = _times(layer.padding, rate)
    if isinstance(layer, nn.Conv2d):
        # what the other padding modes read
        layer._reversed_padding_repeated_twice = [p for p in reversed(pair(layer.padding)) for _ in (0, 1)]


def _times(size: int | tuple[int, ...], rate: int) -> tuple[int, int]:
    down, across = pair(size)
    return down * rate, across * rate


def _input_strides(net: Backbone) -> dict[Sliding, int]:
    """At which stride each sliding layer reads, seen on a probe without data."""
    found: dict[Sliding, int] = {}

    def see(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(layer, Sliding):
            found[layer] = 2 ** round(math.log2(_PROBE / inputs[0].shape[2]))

    hooks = [m.register_forward_pre_hook(see) for _, step in net.steps() for m in step.modules()]
    mode = net.training
    meta = {name: torch.empty_like(value, device="meta") for name, value in net.state_dict().items()}
    try:
        with torch.no_grad():
            probe = torch.empty(1, net.in_channels, _PROBE, _PROBE, device="meta")
            torch.func.functional_call(net.eval(), meta, probe)
    finally:
        net.train(mode)
        for hook in hooks:
            hook.remove()
    return found
