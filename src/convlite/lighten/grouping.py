"""Which channels to put together in the groups of a grouped convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ROUNDS = 10  # of turns between outputs and inputs; mostly three or four change nothing more
TURNS, STEP = 10, 0.7  # of prices, each so far towards what would level demand if the other prices stayed
MANY = 128  # rows, below which an assignment takes no longer than prices do


def partition(use: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Groups of outputs and of inputs, all of one size, such that outputs keep much of what they take in.

    From a spectral start (Dhillon 2001, "Co-clustering documents and words using bipartite spectral graph
    partitioning"), outputs choose among the groups of inputs and inputs among those of outputs, each time the best
    that equal sizes allow.

    Arguments:
        use: (M, C), at least 0: how much output m takes from input c. Groups divide both.

    Returns:
        The group of each output (M,) and of each input (C,).
    """
    inputs = _alike(use, groups)
    outputs = assigned(use @ F.one_hot(inputs, groups).to(use))
    for _ in range(ROUNDS):
        again = assigned(use.T @ F.one_hot(outputs, groups).to(use))
        if bool((again == inputs).all()):
            break
        inputs = again
        outputs = assigned(use @ F.one_hot(inputs, groups).to(use))
    return outputs, inputs


def assigned(gain: Tensor) -> Tensor:
    """The group (n,) of each row of gains (n, groups): as much in all as groups of equal size can have."""
    from scipy.optimize import linear_sum_assignment

    n, groups = gain.shape
    seats = _levelled(gain).repeat_interleave(n // groups, dim=1)  # (n, n): a column for each place in a group
    _, seat = linear_sum_assignment(seats.cpu().numpy(), maximize=True)
    return torch.from_numpy(seat).to(gain.device).div(n // groups, rounding_mode="floor")


def _levelled(gain: Tensor) -> Tensor:
    """Gains (n, groups) less a price for each group, at which nearly as many rows want it as have a place in it.

    Prices that all rows pay alike change no assignment; but to find them is most of the work of finding it.
    """
    n, groups = gain.shape
    gain = gain - gain.mean(0)
    for _ in range(TURNS if n >= MANY and groups > 1 else 0):
        best = gain.topk(2, dim=1)
        others = best.values[:, :1].expand(-1, groups).scatter(1, best.indices[:, :1], best.values[:, 1:])
        wanted = (gain - others).topk(n // groups + 1, dim=0).values  # (n / groups + 1, groups), falling
        gain = gain - STEP * wanted[-2:].mean(0)
    return gain


def _alike(use: Tensor, groups: int) -> Tensor:
    """The group of each input (C,) from the leading singular vectors: near those that lie far from each other."""
    rows, columns = (use.sum(i).clamp_min(1e-12 * float(use.sum()) + 1e-300).sqrt() for i in (1, 0))
    even = use / rows[:, None] / columns
    leading = torch.linalg.eigh(even.T @ even)[1][:, -groups:] / columns[:, None]
    places = F.normalize(leading, dim=1)  # (C, groups)
    near = torch.empty(len(places), 0, dtype=places.dtype, device=places.device)
    centre = int(columns.argmax())
    for _ in range(groups):
        near = torch.cat([near, places @ places[centre, :, None]], 1)  # (C, centres)
        centre = int(near.amax(1).argmin())
    return assigned(near)
