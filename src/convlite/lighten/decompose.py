"""From a trained convolution to a module of another kind that computes nearly the same."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..kinds import Kind
from ..models.surgery import Weighted, new_layer, value_of
from ..nn import PermutedConv2d
from .fit import fit
from .form import Factors
from .patches import columns_of
from .target import own_target


def decompose(layer: Weighted, kind: Kind, inputs: Tensor | None = None) -> tuple[nn.Module, float]:
    """The module of `kind` that best stands in for a trained layer, and its error.

    Arguments:
        layer: it is left as it is.
        kind: Separable (either order) or Permuted for a dense convolution; Asymmetric, LowRank or Bottleneck;
            with nothing between, a Bottleneck whole or with one channel in a slice; LowRank for an `nn.Linear`.
        inputs: second moments of the layer's input patches, (D, D) with D = C·Kh·Kw in the order of the weight;
            of a grouped one (G, D, D), with D what a group reads. Then the error is that of the outputs on such
            inputs; without, that of the weights.

    Returns:
        The module, in the layer's device and dtype, and the squared error relative to what it stands in for.

    Raises:
        InputError: the kind can't stand there, or can't hold a dense kernel; moments of another size; weights
            that are not finite.
    """
    module = new_layer("", layer, kind)
    value = value_of(layer)
    groups, columns = value.groups, columns_of(value)
    if inputs is not None:
        expected = (columns, columns) if groups == 1 else (groups, columns, columns)
        if inputs.shape != expected:
            raise InputError(f"Moments of shape {expected} are needed, given {tuple(inputs.shape)}.")
        inputs = inputs.to(layer.weight.device, torch.float64).view(groups, columns, columns)
    if not bool(layer.weight.isfinite().all()):
        raise InputError("The layer's weights are not finite, so there is nothing to decompose.")
    target = own_target(layer.weight, groups, inputs)
    factors = fit(kind, value, target)
    energy, lost = float(target.energy.sum()), float(target.error(factors.kernel).sum())
    set_factors_(module, factors, None if layer.bias is None else layer.bias.detach())
    return module, lost / energy if energy else 0.0


def set_factors_(module: nn.Module, factors: Factors, bias: Tensor | None = None) -> None:
    """Write factors (and the bias, into the last layer) into a module of their kind, or a single layer."""
    layers = factors_in(module)
    with torch.no_grad():
        for layer, weight in zip(layers, balanced(factors.weights), strict=True):
            layer.weight.copy_(weight.reshape(layer.weight.shape))
        if isinstance(module, PermutedConv2d) and factors.orders is not None:
            into, out = factors.orders
            module.get_buffer("before.order").copy_(into)
            module.get_buffer("after.order").copy_(out.argsort())
            bias = None if bias is None else bias[out]
        last = layers[-1].bias
        if last is not None and bias is not None:
            last.copy_(bias)


def factors_in(module: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    """The layers of a module of some kind, in order."""
    return [child for child in (module, *module.children()) if isinstance(child, nn.Conv2d | nn.Linear)]


def balanced(weights: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The same chain with its scale shared out evenly, so that training moves all factors alike."""
    norms = [weight.norm().clamp_min(1e-30) / math.prod(weight.shape[:2]) ** 0.5 for weight in weights]
    mean = torch.stack(norms).log().mean().exp()
    return tuple(weight * (mean / norm) for weight, norm in zip(weights, norms))
