"""The form of a network that is only run: batch norms folded into the layers before them, nothing that trains."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..errors import RunError

Linear = (
    nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
)
Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
_TOLERANCE = 1e-4  # of the largest output; folding moves roundings, nothing more


def optimise(model: nn.Module, example: Tensor) -> nn.Module:
    """A copy of the model for inference, which answers the same and can't be trained.

    A batch norm goes into the convolution or linear layer whose output it alone reads (Jacob et al., arXiv
    1712.05877, section 3.2): that is seen in one forward of the example, so any `nn.Module` will do. Dropout
    goes. What stays as it is: layers called twice or with shared or computed weights, and norms after others.

    Arguments:
        example: an input, batch included.

    Returns:
        In evaluation mode; the weights of a network for images are channels last in memory.

    Raises:
        RunError: the copy answers the example differently, as a model may whose forward looks into its layers.
    """
    light = copy.deepcopy(model).eval()
    vars(light).pop("_convlite", None)  # no `create` makes this network again
    with torch.no_grad():
        before = light(example)
        replaced: dict[nn.Module, nn.Module] = {m: nn.Identity() for m in light.modules() if _is_dropout(m)}
        for layer, norm in list(foldable(light, example)):
            fold_(layer, norm)
            replaced[norm] = nn.Identity()
        for parent in list(light.modules()):
            for name, child in list(parent._modules.items()):
                if child in replaced:
                    setattr(parent, name, replaced[child])
        if all(parameter.dim() < 5 for parameter in light.parameters()):  # the layout is of images
            light.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        after = light(example)
    worst = difference(before, after)
    if not worst <= _TOLERANCE:
        raise RunError(
            f"Folding batch norms changed the network's answer by {worst:.1e} of its largest: run it as it is, and "
            "report its forward."
        )
    return light.requires_grad_(False)


def difference(one: Any, other: Any) -> float:
    """The largest difference of two answers, relative to the largest number in the first."""
    worst = 0.0
    for a, b in zip(tree_leaves(one), tree_leaves(other), strict=True):
        if isinstance(a, Tensor) and a.numel():
            a, b = a.detach().double(), b.detach().double()
            worst = max(worst, float((a - b).abs().max() / a.abs().max().clamp_min(1e-30)))
    return worst


def foldable(model: nn.Module, example: Tensor) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Each (layer, batch norm) such that the norm alone reads all that the layer gives."""
    made: dict[int, tuple[nn.Module, Tensor]] = {}  # by the id of a layer's output, which is kept alive
    read: list[tuple[nn.Module, int]] = []
    calls: Counter[nn.Module] = Counter()

    def see(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        calls[module] += 1
        if isinstance(module, Linear) and isinstance(output, Tensor):
            made[id(output)] = module, output
        elif isinstance(module, Norm) and id(inputs[0]) in made:  # now, for later another may have this id
            read.append((module, id(inputs[0])))

    hooks = [m.register_forward_hook(see) for m in model.modules() if isinstance(m, Linear | Norm)]
    reads = _Reads(made)
    try:
        with torch.no_grad(), reads:
            answer = model(example)
    finally:
        for hook in hooks:
            hook.remove()
    given = {id(leaf) for leaf in tree_leaves(answer)}
    owners = Counter(id(p) for m in model.modules() for p in m._parameters.values() if p is not None)
    for norm, tensor in read:
        if reads.count[tensor] != 1 or tensor in given:
            continue
        layer = made[tensor][0]
        alone = calls[layer] == calls[norm] == 1 and all(
            owners[id(p)] == 1 for p in layer.parameters(recurse=False)
        )
        own = isinstance(vars(layer)["_parameters"].get("weight"), nn.Parameter)  # and not computed by another
        if alone and own and getattr(norm, "running_var", None) is not None:
            yield layer, norm


class _Reads(TorchDispatchMode):
    """Counts the operations that read each of the watched tensors."""

    def __init__(self, watched: dict[int, Any]) -> None:
        super().__init__()
        self.count: Counter[int] = Counter()
        self._watched = watched

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self.count.update({id(leaf) for leaf in tree_leaves((args, kwargs)) if id(leaf) in self._watched})
        return function(*args, **kwargs)


def fold_(layer: Any, norm: Any) -> None:
    """Put what a batch norm in evaluation mode does into the layer before it."""
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)  # (M,)
    shift = -norm.running_mean.double() * scale
    if norm.affine:
        scale, shift = scale * norm.weight.double(), shift * norm.weight.double() + norm.bias.double()
    weight = layer.weight.double()
    if getattr(layer, "transposed", False):  # (C, M / groups, *K): the outputs of each group stand in dimension 1
        groups = layer.groups
        split = weight.unflatten(0, (groups, -1)) * scale.view(groups, 1, -1, *(1,) * (weight.dim() - 2))
        folded = split.flatten(0, 1)
    else:  # (M, C / groups, *K)
        folded = weight * scale.view(-1, *(1,) * (weight.dim() - 1))
    bias = shift if layer.bias is None else shift + layer.bias.double() * scale
    layer.weight = nn.Parameter(folded.to(layer.weight.dtype))
    layer.bias = nn.Parameter(bias.to(layer.weight.dtype))


def _is_dropout(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.dropout._DropoutNd)
