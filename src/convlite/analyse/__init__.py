"""What any model costs, layer by layer: counted without running it, and measured."""

from .compare import Choice, Comparison, compare
from .count import analyse
from .latency import Machine, Timing, measure, measure_models
from .table import ConvUse, Coverage, Row, Sum, Table, Unknown

__all__ = [
    "Choice",
    "Comparison",
    "ConvUse",
    "Coverage",
    "Machine",
    "Row",
    "Sum",
    "Table",
    "Timing",
    "Unknown",
    "analyse",
    "compare",
    "measure",
    "measure_models",
]
