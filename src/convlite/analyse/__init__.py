"""What any model costs, layer by layer: counted without running it, and measured."""

from .compare import Choice, Comparison, compare, compare_in
from .count import analyse
from .diff import Change, Difference, diff
from .formats import summary, to_csv, to_html, to_markdown
from .inputs import Spec, dtype_of, filled, float_type, read_spec
from .latency import Machine, Timing, measure, measure_models
from .layers import LayerTimes, time_layers
from .memory import Memory, Peak, peak_memory
from .onnx_file import read_onnx
from .report import MEASURED_FIGURES, ROW_FIGURES, alternatives, examine, largest, modules, read_report, report
from .roofline import Peaks, Roof, peaks, roofline
from .table import ConvUse, Coverage, Row, Sum, Table, Unknown
from .whatif import Priced, priced, what_if

__all__ = [
    "MEASURED_FIGURES",
    "ROW_FIGURES",
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
    "Spec",
    "Sum",
    "Table",
    "Timing",
    "Unknown",
    "alternatives",
    "analyse",
    "compare",
    "compare_in",
    "diff",
    "dtype_of",
    "examine",
    "filled",
    "float_type",
    "largest",
    "measure",
    "measure_models",
    "modules",
    "peak_memory",
    "peaks",
    "priced",
    "read_onnx",
    "read_report",
    "read_spec",
    "report",
    "roofline",
    "summary",
    "time_layers",
    "to_csv",
    "to_html",
    "to_markdown",
    "what_if",
]
