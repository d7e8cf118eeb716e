"""From a trained dense convolution to a module of another kind that computes nearly the same."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..kinds import Kind, conv_of
from .fit import Factors, fit
from .target import own_target


def decompose(conv: nn.Conv2d, kind: Kind, inputs: Tensor | None = None) -> tuple[nn.Module, float]:
    """The module of `kind` that best stands in for a trained convolution, and its error.

    Arguments:
        conv: a dense convolution (groups = 1); it is left as it is.
        kind: Separable (either order), Asymmetric, LowRank or Bottleneck, with nothing between.
        inputs: second moments of the convolution's input patches, (D, D) with D = C·Kh·Kw in the order of
            the weight. Then the error is that of the outputs on such inputs; without, that of the weights.

    Returns:
        The module, in `conv`'s device and dtype, and the squared error relative to what it stands in for.

    Raises:
        InputError: the kind can't stand there, or can't hold a dense kernel; moments of another size; weights
            that are not finite.
    """
    value = conv_of(conv)
    reason = kind.why_not(value)
    if reason:
        raise InputError(f"{kind} can't stand here: {reason}.")
    columns = value.c * value.k[0] * value.k[1]
    if inputs is not None and inputs.shape != (columns, columns):
        raise InputError(f"Moments of shape ({columns}, {columns}) are needed, given {tuple(inputs.shape)}.")
    if not bool(conv.weight.isfinite().all()):
        raise InputError("The convolution's weights are not finite, so there is nothing to decompose.")
    target = own_target(conv.weight, None if inputs is None else inputs.to(conv.weight.device, torch.float64))
    factors = fit(kind, value, target)
    energy = float(target.energy.sum())
    error = float(target.error(factors.kernel).sum()) / energy if energy else 0.0
    return assemble(conv, kind, factors), error


def assemble(conv: nn.Conv2d, kind: Kind, factors: Factors) -> nn.Module:
    """A module of `kind` with the given factors and `conv`'s bias, device and dtype."""
    module = kind.build(conv_of(conv), device=conv.weight.device, dtype=conv.weight.dtype)
    set_factors_(module, factors, None if conv.bias is None else conv.bias.detach())
    return module


def set_factors_(module: nn.Module, factors: Factors, bias: Tensor | None = None) -> None:
    """Write factors (and the bias, into the last convolution) into a module of their kind, or a convolution."""
    convs = [child for child in (module, *module.children()) if isinstance(child, nn.Conv2d)]
    with torch.no_grad():
        for conv, weight in zip(convs, balanced(factors.weights), strict=True):
            conv.weight.copy_(weight)
        last = convs[-1].bias
        if last is not None and bias is not None:
            last.copy_(bias)


def balanced(weights: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The same chain with its scale shared out evenly, so that training moves all factors alike."""
    norms = [weight.norm().clamp_min(1e-30) / weight.shape[0] ** 0.5 for weight in weights]
    mean = torch.stack(norms).log().mean().exp()
    return tuple(weight * (mean / norm) for weight, norm in zip(weights, norms))
