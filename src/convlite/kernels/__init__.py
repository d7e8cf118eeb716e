"""Fast convolutions for inference on processors, each beside the plain one that defines it."""

from .build import why_not
from .fused import GROUP, FusedConv2d, Part, why_not_fused
from .memory import Pool
from .step import Step, pool, run

__all__ = ["GROUP", "FusedConv2d", "Part", "Pool", "Step", "pool", "run", "why_not", "why_not_fused"]
