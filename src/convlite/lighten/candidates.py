"""The kinds and ranks worth trying in a layer's place."""

from __future__ import annotations

from ..kinds import Asymmetric, Bottleneck, Conv, Kind, LowRank, Permuted, Separable

SHARES = (1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8)  # of the full width, tried as ranks
TERMS = (1, 2, 3, 4, 6, 8, 12, 16)  # in each slice of a sliced low rank
WIDTHS = (1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1, 5 / 4, 3 / 2, 7 / 4, 2, 5 / 2, 3)  # between two 1×1
SMALL = 5  # kernels below this, if depthwise, are bound by memory: two convolutions would take longer than one
WIDE = 512  # channels beyond which it takes too long to find those that belong together in a group
LARGE = 128 * 128  # C·M beyond which pointwise first, fitted one output channel at a time, takes too long


def candidates(layer: Conv) -> list[Kind]:
    """The kinds worth trying for a convolution: legal, linear, and past break-even in both resources."""
    dense, groups = layer.one_group, layer.groups
    k2 = dense.k[0] * dense.k[1]
    if groups > 1 and dense.c == 1 and max(dense.k) < SMALL:
        return []
    tried: list[Kind] = [LowRank(groups * rank) for rank in _ranks(min(dense.m, dense.c * k2))]
    if k2 > 1 and groups == 1:
        tried += [Separable(multiplier=r) for r in range(1, k2)]
        slices = [2**i for i in range(1, dense.c.bit_length()) if dense.c % 2**i == 0 and dense.c > 2**i]
        terms = [(s, t) for s in slices for t in TERMS if s * t <= dense.m and t * s <= dense.c * k2]
        tried += [LowRank(s * t, slices=s) for s, t in terms]
        if dense.c * dense.m <= LARGE:
            tried += [Separable("pointwise_first", multiplier=r) for r in range(1, min(k2, 3))]
    if groups == 1 and max(dense.c, dense.m) <= WIDE:
        tried += [Permuted(2**i) for i in range(1, min(dense.c, dense.m).bit_length())]
    if k2 > 1:
        inside = [(max(1, round(s * dense.c)), max(1, round(s * dense.m))) for s in SHARES]
        tried += [Bottleneck(groups * a, groups * b) for a, b in inside]
        inner = sorted({max(2, round(width * max(dense.c, dense.m))) for width in WIDTHS})
        tried += [Bottleneck(groups * r, groups * r, slices=r) for r in inner]
    if min(dense.k) > 1:
        most = min(dense.c * dense.k[0], dense.m * dense.k[1])
        tried += [Asymmetric(groups * rank) for rank in _ranks(most)]
    whole = layer.cost()
    found = []
    for kind in dict.fromkeys(tried):
        if kind.why_not(layer) is None:
            cost = kind.cost(layer)
            if cost.macs < whole.macs and cost.params < whole.params:
                found.append(kind)
    return found


def _ranks(full: int) -> list[int]:
    return sorted({max(1, round(share * full)) for share in SHARES})
