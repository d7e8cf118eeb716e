"""Multiply-accumulates from the shapes that layers see while a network really runs; nothing of convlite's in it."""

import torch
from torch import Tensor, nn


def macs_by_shapes(net: nn.Module, x: Tensor) -> int:
    """Of one forward: convolutions and linear layers by what they wrote, timm's attention by its tokens.

    Whatever else a network computes by functional calls is not seen; the networks that it is used for have none.
    """
    macs = 0

    def see(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal macs
        if hasattr(layer, "qkv"):
            tokens = args[0].shape[1]  # (N, tokens, channels)
            macs += 2 * out.numel() * tokens  # scores, then their product with the values
        else:
            macs += out.numel() * layer.weight[0].numel()

    seen = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear) or hasattr(m, "qkv")]
    hooks = [layer.register_forward_hook(see) for layer in seen]
    with torch.no_grad():
        net.eval()(x)
    for hook in hooks:
        hook.remove()
    return macs
