"""The vocabulary: kinds of convolution as small frozen values."""

from .conv import Conv, conv, conv_of
from .grouped import Grouped, Permuted, Shuffled
from .kind import Kind
from .text import from_dict, parse
from .vocabulary import (
    KINDS,
    Asymmetric,
    Bottleneck,
    Depthwise,
    LowRank,
    Normal,
    Pointwise,
    Separable,
    Stacked,
)

__all__ = [
    "KINDS",
    "Asymmetric",
    "Bottleneck",
    "Conv",
    "Depthwise",
    "Grouped",
    "Kind",
    "LowRank",
    "Normal",
    "Permuted",
    "Pointwise",
    "Separable",
    "Shuffled",
    "Stacked",
    "conv",
    "conv_of",
    "from_dict",
    "parse",
]
