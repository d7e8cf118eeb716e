"""What a closed form is, and what several of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..kinds import Bottleneck, Conv, LowRank, Permuted, Separable
from .target import Target


@dataclass(frozen=True, eq=False)
class Factors:
    """Weights of a kind's primitive convolutions, in order.

    Arguments:
        weights: each of all groups (G, outputs, inputs, Kh, Kw).
        compose: of such weights, the dense kernel (G, m, D) that does what they do.
        orders: where a kind permutes channels, which input and which output channel stands in each place.
    """

    weights: tuple[Tensor, ...]
    compose: Callable[..., Tensor]
    orders: tuple[Tensor, Tensor] | None = None

    @property
    def kernel(self) -> Tensor:
        """The dense kernel (G, m, D), worked out each time: it may be much larger than the weights."""
        return self.compose(*self.weights)

    def mixed(self, mix: Tensor) -> Factors:
        """What gives `mix` (G, m, m) times y where these give y, group by group."""
        *others, last = self.weights
        places = slice(None) if self.orders is None else self.orders[1]
        wanted = slice(None) if self.orders is None else self.orders[1].argsort()
        last = (mix @ last[:, wanted].flatten(2)).reshape(last.shape)[:, places]
        return replace(self, weights=(*others, last))


class Form(ABC):
    """One kind's closed form for one layer.

    Arguments:
        kind: any of that family.
        dense: one group of the convolution.
        target: what to come near, in all groups.
        most: the largest rank that will be asked for (of a Bottleneck the larger of its input ranks), where
            several will be.
        begun: weights of that kind (G, outputs, ...), which have been fitted to much the same.
    """

    def __init__(
        self, kind: Any, dense: Conv, target: Target, most: int | None, begun: Sequence[Tensor] = ()
    ) -> None:
        self.kind, self.dense, self.target, self.begun = kind, dense, target, begun
        self.alone, self.most = most is None, most or rank_of(kind, dense)
        self.m, self.c, (self.kh, self.kw) = dense.m, dense.c, dense.k
        self.g, self.kk = len(target.weight), self.kh * self.kw

    @abstractmethod
    def fit(self, kind: Any) -> Factors:
        """The factors of that kind, with its rank."""

    @property
    def blocks(self) -> Tensor:
        """S by input channel and pixel: (G, C, K², C, K²)."""
        return self.target.second.reshape(self.g, self.c, self.kk, self.c, self.kk)


def rank_of(kind: Any, dense: Conv) -> int:
    """The number that a form's shared work depends on; of a sliced low rank that of each slice."""
    match kind:
        case Separable():
            return kind.multiplier
        case Bottleneck():
            return kind.ranks(dense)[0]
        case LowRank():
            return kind.inner(dense) // kind.slices
        case Permuted():
            return kind.groups
        case _:
            return dense.m if kind.rank is None else kind.rank


def falling(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (…, n), the largest first, and their vectors (…, n, n) in columns."""
    values, vectors = torch.linalg.eigh(moments)
    return values.clamp_min(0).flip(-1), vectors.flip(-1)


def widened(weights: tuple[Tensor, Tensor], extra: int) -> tuple[Tensor, ...]:
    """The same factors with `extra` idle channels between, for a rank beyond the full one."""
    first, last = weights
    if extra <= 0:
        return weights
    g, m = last.shape[:2]
    return (
        torch.cat([first, first.new_zeros(g, extra, *first.shape[2:])], dim=1),
        torch.cat([last, last.new_zeros(g, m, extra, *last.shape[3:])], dim=2),
    )
