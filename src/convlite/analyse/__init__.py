"""What any model costs, layer by layer: counted without running it, and measured."""

from .compare import Choice, Comparison, compare, compare_in
from .count import analyse
from .diff import Change, Difference, diff
from .formats import report, to_csv, to_html, to_markdown
from .latency import Machine, Timing, measure, measure_models
from .layers import LayerTimes, time_layers
from .memory import Memory, Peak, peak_memory
from .roofline import Peaks, Roof, peaks, roofline
from .table import ConvUse, Coverage, Row, Sum, Table, Unknown
from .whatif import Priced, priced, what_if

__all__ = [
    "Change",
    "Choice",
    "Comparison",
    "ConvUse",
    "Coverage",
    "Difference",
    "LayerTimes",
    "Machine",
    "Memory",
    "Peak",
    "Peaks",
    "Priced",
    "Roof",
    "Row",
    "Sum",
    "Table",
    "Timing",
    "Unknown",
    "analyse",
    "compare",
    "compare_in",
    "diff",
    "measure",
    "measure_models",
    "peak_memory",
    "peaks",
    "priced",
    "report",
    "roofline",
    "time_layers",
    "to_csv",
    "to_html",
    "to_markdown",
    "what_if",
]
