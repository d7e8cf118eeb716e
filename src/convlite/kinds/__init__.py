"""The vocabulary: kinds of convolution as small frozen values."""

from .conv import Conv, conv, conv_of
from .kind import Kind
from .text import from_dict, parse
from .vocabulary import (
    KINDS,
    Asymmetric,
    Bottleneck,
    Depthwise,
    Grouped,
    LowRank,
    Normal,
    Pointwise,
    Separable,
    Shuffled,
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
    "Pointwise",
    "Separable",
    "Shuffled",
    "Stacked",
    "conv",
    "conv_of",
    "from_dict",
    "parse",
]
