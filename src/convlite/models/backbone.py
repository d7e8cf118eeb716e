"""The one contract of every family: a chain of named steps in named flows, then a head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import InputError, nearest
from .head import Head
from .layers import Maker, Residual, initialise_

if TYPE_CHECKING:
    from .weights import Loaded


@dataclass(frozen=True)
class Family:
    """One named network: how it is built, and what it takes unless told otherwise.

    Arguments:
        build: the function that makes it.
        paper: where it was published.
        input: (channels, height, width) of the published figures.
        classes: how many, unless the caller says.
        fixed: arguments of `build` that this name stands for.
        numbers: {layout of a checkpoint: options that give the numbers it was trained with}.
    """

    build: Callable[..., Backbone]
    paper: str
    input: tuple[int, int, int] = (3, 224, 224)
    classes: int = 1000
    fixed: Mapping[str, Any] = field(default_factory=dict)
    numbers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Backbone(nn.Module):
    """A network as a chain of named steps.

    Arguments:
        flows: {name: the steps of that flow, named}, in the order they run.
        head: what turns the last map into logits.
        taps: {"flow.step": (channels, stride)} of the maps that `features_only` gives, in order.
        smallest: the least height and width that the network can take.
        maker: what made the layers; it knows where the asked kind of convolution was not legal.
        aux: {"flow.step": auxiliary head on that step's map}, run in training mode only.

    Attributes:
        kept: {path: why the asked kind of convolution does not stand there}.
        placed: how many convolutions are of the asked kind.
        checkpointing: in training, compute a step's inner activations twice, keep none (arXiv 1604.06174).

    `forward` gives (N, classes); (N, C) with `num_classes=0`; a list of maps when only features are asked
    for; (N, classes, H, W) with a head that labels pixels; and in training mode, with auxiliary heads, the
    tuple (logits, auxiliary logits, ...).
    """

    _convlite: dict[str, Any]  # how `models.create` made this network; see there
    loaded: Loaded | None = None  # what came out of the file that `create` was given as `pretrained`

    def __init__(
        self,
        flows: Mapping[str, nn.Sequential],
        head: Head,
        taps: Mapping[str, tuple[int, int]],
        *,
        maker: Maker,
        smallest: int = 1,
        aux: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        for name, flow in flows.items():
            self.add_module(name, flow)
        self.head: Any = head
        self.aux = nn.ModuleList((aux or {}).values())
        self.flows = tuple(flows)
        self.taps = dict(taps)
        self.in_channels, self.smallest = maker.asked.in_channels, smallest
        self.num_features = head.features
        self.features_only = self.reads_maps = self.checkpointing = False
        self.kept = {path: maker.kept[m] for path, m in self.named_modules() if m in maker.kept}
        self.placed = maker.placed
        self._aux_after = tuple(aux or {})
        self._frozen: tuple[str, ...] = ()
        initialise_(self)

    @property
    def channels(self) -> list[int]:
        """Channels of each feature map."""
        return [channels for channels, _ in self.taps.values()]

    @property
    def strides(self) -> list[int]:
        """How many input pixels one pixel of each feature map stands for."""
        return [stride for _, stride in self.taps.values()]

    def steps(self) -> Iterator[tuple[str, nn.Module]]:
        """Every ("flow.step", module) before the head, in the order they run."""
        for flow in self.flows:
            for name, step in getattr(self, flow).named_children():
                yield f"{flow}.{name}", step

    def forward(self, x: Tensor) -> Any:  # (N, C, H, W) -> (N, classes)
        self._check(x)
        size, maps, aux = x.shape[2:], [], []
        for path, step in self.steps():
            if self.checkpointing and self.training:
                x = checkpoint(step, x, use_reentrant=False)
            else:
                x = step(x)
            if self.reads_maps and path in self.taps:
                maps.append(x)
            if self.training and path in self._aux_after and not self.features_only:
                aux.append(self.aux[self._aux_after.index(path)](x))
        if self.features_only:
            return maps
        logits = self.head(maps, size) if self.reads_maps else self.head(x)
        return (logits, *aux) if aux else logits

    def _check(self, x: Tensor) -> None:
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise InputError(
                f"The network takes images of shape (N, {self.in_channels}, H, W), given {tuple(x.shape)}."
            )
        if self.smallest > 1 and min(x.shape[2], x.shape[3]) < self.smallest:
            raise InputError(
                f"An image of {x.shape[2]}×{x.shape[3]} is too small: "
                f"this network takes {self.smallest}×{self.smallest} or more."
            )

    def only_features_(self) -> None:
        """From now on give the feature maps; the head goes."""
        self.use_head_(None)

    def use_head_(self, head: nn.Module | None) -> None:
        """Another head, which is given the feature maps and the image's size; None gives the maps themselves."""
        self.features_only, self.reads_maps = head is None, True
        self.head, self.aux, self._aux_after = head or nn.Identity(), nn.ModuleList(), ()

    def reset_classifier(self, num_classes: int) -> None:
        """A fresh classifier for `num_classes`, in place; 0 for none. Auxiliary heads go.

        Raises:
            InputError: the network gives features only, or the number is negative.
        """
        if self.features_only:
            raise InputError("A network made with features_only=True has no classifier: create it without.")
        if num_classes < 0:
            raise InputError(f"num_classes must be 0 or more, given {num_classes}.")
        self.head.reset_(num_classes)
        self.aux, self._aux_after = nn.ModuleList(), ()
        if hasattr(self, "_convlite"):
            arguments = self._convlite["create"]["arguments"]
            arguments.pop("aux", None)
            arguments["num_classes"] = num_classes

    def freeze(self, until: str | None) -> None:
        """Fix the steps up to and with `until`: no gradients, and batch norms keep their statistics.

        Arguments:
            until: the name of a flow or a step ("middle", "middle.block6", "block6"); None frees everything.

        Raises:
            InputError: no such flow or step.
        """
        paths = [path for path, _ in self.steps()]
        names = {path.split(".")[-1]: i for i, path in enumerate(paths)}
        names |= {path: i for i, path in enumerate(paths)}
        names |= {path.split(".")[0]: i for i, path in enumerate(paths)}  # the flow's last step
        if until is not None and until not in names:
            raise InputError(f"The network has no flow or step {until!r}; {nearest(until, names)}")
        self._frozen = () if until is None else tuple(paths[: names[until] + 1])
        for path, step in self.steps():
            step.requires_grad_(path not in self._frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> Backbone:
        """As `nn.Module.train`, but frozen steps stay in evaluation mode."""
        super().train(mode)
        for path in self._frozen:
            self.get_submodule(path).eval()
        return self

    def set_dropout_(self, rate: float) -> None:
        """The probability of every dropout in the head."""
        for module in self.head.modules():
            if isinstance(module, nn.Dropout):
                module.p = _probability("dropout", rate)

    def set_drop_path_(self, rate: float) -> None:
        """Stochastic depth: the branch of the last residual step is dropped with `rate`, the first never.

        Raises:
            InputError: the network has no residual steps.
        """
        branches = [module for module in self.modules() if isinstance(module, Residual)]
        if not branches:
            raise InputError("drop_path drops residual branches, and this network has none: leave it at 0.")
        for i, module in enumerate(branches):
            module.drop = _probability("drop_path", rate) * i / max(1, len(branches) - 1)


def _probability(name: str, rate: float) -> float:
    if not 0 <= rate < 1:
        raise InputError(f"{name} is a probability from 0 to below 1, given {rate}.")
    return rate
