"""The modules that torch lacks: chains of convolutions with `nn.Conv2d`'s own signature.

Each can stand wherever an `nn.Conv2d` stands, in anybody's network. Shapes are `nn.Conv2d`'s:
(N, C, H, W) in, (N, M, H', W') out.
"""

from .chain import Between, Order
from .factored import AsymmetricConv2d, BottleneckConv2d, LowRankConv2d
from .permuted import ChannelPermutation, PermutedConv2d
from .separable import DepthwiseConv2d, SeparableConv2d
from .shuffled import ChannelShuffle, ShuffledConv2d
from .stacked import StackedConv2d

__all__ = [
    "AsymmetricConv2d",
    "Between",
    "BottleneckConv2d",
    "ChannelPermutation",
    "ChannelShuffle",
    "DepthwiseConv2d",
    "LowRankConv2d",
    "Order",
    "PermutedConv2d",
    "SeparableConv2d",
    "ShuffledConv2d",
    "StackedConv2d",
]
