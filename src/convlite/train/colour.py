"""Random changes of colour: one matrix a picture, in one product."""

from __future__ import annotations

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # how bright red, green and blue are, ITU-R BT.601
YIQ = (LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))  # brightness, and two axes of hue


def jitter(pixels: Tensor, strength: float, hue: float, numbers: Tensor) -> Tensor:
    """Brightness, contrast and saturation by a factor in 1 ± strength each, and the hue turned.

    Arguments:
        pixels: uint8, (N, C, H, W); of grey ones only brightness and contrast change.
        hue: the most it is turned by, each way, of a full turn.
        numbers: (N, 4), in [0, 1).
    """
    signed = 2 * numbers - 1
    brightness, contrast, saturation = (1 + strength * signed[:, :3]).unbind(1)  # (N,)
    return recolour(pixels, brightness, contrast, saturation, hue * signed[:, 3])


def recolour(pixels: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, turn: Tensor) -> Tensor:
    """Factors and turns (N,) of each picture's colours, clamped once, at the end.

    Contrast is around the picture's mean brightness. Hues turn at equal brightness, in YIQ.
    """
    floats = pixels.float()
    count = pixels.shape[1]
    one = torch.eye(count, device=pixels.device)
    luma = torch.tensor(LUMA if count == 3 else (1 / count,) * count, device=pixels.device)
    matrix = brightness[:, None, None] * one  # (N, C, C)
    middle = brightness * (floats.mean((2, 3)) @ luma)  # (N,)
    matrix = contrast[:, None, None] * matrix
    offset = ((1 - contrast) * middle)[:, None].expand(-1, count)  # (N, C)
    if count == 3:
        grey = luma.expand(3, 3)  # every channel the brightness
        tone = saturation[:, None, None] * one + (1 - saturation)[:, None, None] * grey
        tone = tone @ _turned(turn)
        matrix, offset = tone @ matrix, (tone @ offset[:, :, None])[..., 0]
    changed = torch.einsum("ndc,nchw->ndhw", matrix, floats) + offset[:, :, None, None]
    return changed.round_().clamp_(0, 255).to(torch.uint8)


def _turned(turn: Tensor) -> Tensor:
    """The matrices (N, 3, 3) that turn hues by shares of a full turn (N,)."""
    to = torch.tensor(YIQ, device=turn.device)
    angle = 2 * torch.pi * turn
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(turn), torch.ones_like(turn)
    rows = [one, zero, zero, zero, cos, -sin, zero, sin, cos]
    return torch.linalg.inv(to) @ torch.stack(rows, 1).view(-1, 3, 3) @ to
