"""Fast convolutions on processors, each beside the plain one that defines it; and on GPUs, steps recorded whole."""

from .build import why_not
from .fused import GROUP, FusedConv2d, Part, why_not_fused
from .graphs import Recorded, Work
from .memory import Pool
from .processor import has
from .step import Step, pool, run
from .trained import conv2d, convolutions

__all__ = [
    "GROUP",
    "FusedConv2d",
    "Part",
    "Pool",
    "Recorded",
    "Step",
    "Work",
    "conv2d",
    "convolutions",
    "has",
    "pool",
    "run",
    "why_not",
    "why_not_fused",
]
