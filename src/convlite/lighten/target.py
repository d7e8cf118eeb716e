"""What the factors of a layer are fitted to, and the linear algebra that all closed forms share.

"Best" is measured at the layer's OUTPUT, not at its weights. With x one input patch (D = C·Kh·Kw numbers in the
order of the weight), y the M outputs wanted for it, and Ŵ (M×D) the kernel that the factors compose to, every
form makes

    E‖y − Ŵx‖² = E‖y‖² − 2·tr(Ŵ·Tᵀ) + tr(Ŵ·S·Ŵᵀ),   S = E[x·xᵀ] (D×D),  T = E[y·xᵀ] (M×D)

small, so that S and T are all that must be known of the data. For a layer on its own inputs T = W·S; with S the
identity it is the plain error of the weights. All matrices are float64: errors are differences of large numbers.
A grouped layer has one such problem for each of its G groups, and all are solved at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-10  # of the mean power: what decides in directions without data


@dataclass(frozen=True)
class Target:
    """What the factors of a layer's groups are fitted to; `second` S and `cross` T as at the top of the file.

    Arguments:
        weight: (G, m, D), the dense kernels.
        second: (G, D, D).
        cross: (G, m, D).
        energy: (G, m), E[y²].
    """

    weight: Tensor
    second: Tensor
    cross: Tensor
    energy: Tensor

    def error(self, kernel: Tensor) -> Tensor:
        """E[(y − ŷ)²] for each output channel (G, m) of a kernel (G, m, D); at least 0."""
        product = kernel @ self.second  # (G, m, D)
        return (self.energy + ((product - 2 * self.cross) * kernel).sum(2)).clamp_min(0)

    def mixed(self, mix: Tensor) -> Target:
        """The same for outputs mixed by (G, m, m); of their energy the part that a kernel can explain."""
        weight, cross = mix @ self.weight, mix @ self.cross
        return Target(weight, self.second, cross, (weight * cross).sum(2))


def own_target(weight: Tensor, groups: int = 1, second: Tensor | None = None) -> Target:
    """The target of a layer on its own inputs: the weight (M, ...) itself.

    Arguments:
        second: S of each group (G, D, D); the identity where left out.
    """
    flat = by_group(weight.detach().double(), groups)  # (G, m, D)
    known = torch.eye(flat.shape[2], dtype=flat.dtype, device=flat.device) if second is None else second
    cross = flat @ known
    return Target(flat, known.expand(groups, -1, -1), cross, (cross * flat).sum(2))


def by_group(rows: Tensor, groups: int) -> Tensor:
    """What stands for output channels (M, ...), group by group: (G, m, ...), flat."""
    return rows.reshape(groups, len(rows) // groups, -1)


def solve(gram: Tensor, right: Tensor) -> Tensor:
    """gram⁻¹·right for symmetric positive semidefinite (batches of) `gram`; directions without data get 0."""
    return torch.cholesky_solve(right, lower(gram))


def leading(rows: Tensor, second: Tensor, rank: int) -> Tensor:
    """The `rank` directions (…, rank, d) of the inputs that rows (…, n, d) use most, inputs having moments S.

    With S = L·Lᵀ these are the right singular vectors of rows·L, times L⁻¹, the most used first (whitened
    singular value decomposition, arXiv 2509.25136).
    """
    half = lower(second)  # (…, d, d)
    top = strongest(rows @ half, rank)  # (…, d, rank)
    found = torch.linalg.solve_triangular(half.mT, top, upper=True).mT
    return found / found.norm(dim=-1, keepdim=True)


def strongest(rows: Tensor, rank: int) -> Tensor:
    """The `rank` right singular vectors (…, d, rank) of rows (…, n, d), the largest first."""
    n, d = rows.shape[-2:]
    if rank <= n < d:  # the products of rows are the smaller matrix
        left = torch.linalg.eigh(rows @ rows.mT)[1][..., -rank:].flip(-1)  # (…, n, rank)
        return torch.linalg.qr(rows.mT @ left).Q  # orthogonal before, too, up to roundings
    return torch.linalg.eigh(rows.mT @ rows)[1][..., -rank:].flip(-1)


class Prefixes:
    """Least squares on the first q features, for every q at once.

    The Cholesky factor of a matrix's leading part is the leading part of its factor. So with L·Lᵀ the features'
    moments (G, Q, Q), R (G, Q, m) what they share with the wanted outputs, and Z = L⁻¹·R, the first q features
    explain ‖Z[:q]‖² of the outputs' energy, and no q needs a factorisation of its own.
    """

    def __init__(self, gram: Tensor, right: Tensor) -> None:
        self._factor = lower(gram)
        self.explained = torch.linalg.solve_triangular(self._factor, right, upper=False)  # Z (G, Q, m)

    def last(self, q: int) -> Tensor:
        """The last factor (G, m, q) on the first q features."""
        upper = self._factor[:, :q, :q].mT
        return torch.linalg.solve_triangular(upper, self.explained[:, :q], upper=True).mT


def lower(gram: Tensor) -> Tensor:
    """L of L·Lᵀ = gram (…, n, n), positive semidefinite up to roundings, made definite by the least ridge."""
    scale = gram.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(torch.finfo(gram.dtype).tiny)
    ridge = torch.full_like(scale, RIDGE)
    while True:  # a ridge of 1 makes anything definite that is no further from it than roundings
        damped = gram.clone()
        damped.diagonal(dim1=-2, dim2=-1).add_((ridge * scale)[..., None])
        factor, failed = torch.linalg.cholesky_ex(damped)
        if not failed.any() or bool((ridge >= 1).any()):
            return factor
        ridge = torch.where(failed > 0, 10 * ridge, ridge)
