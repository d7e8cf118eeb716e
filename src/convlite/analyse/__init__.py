"""What any model costs, layer by layer: counted without running it, and measured."""

from .compare import Choice, Comparison, compare
from .count import analyse
from .latency import Machine, Timing, measure, measure_models
from .layers import LayerTimes, time_layers
from .memory import Memory, Peak, peak_memory
from .table import ConvUse, Coverage, Row, Sum, Table, Unknown

__all__ = [
    "Choice",
    "Comparison",
    "ConvUse",
    "Coverage",
    "LayerTimes",
    "Machine",
    "Memory",
    "Peak",
    "Row",
    "Sum",
    "Table",
    "Timing",
    "Unknown",
    "analyse",
    "compare",
    "measure",
    "measure_models",
    "peak_memory",
    "time_layers",
]
