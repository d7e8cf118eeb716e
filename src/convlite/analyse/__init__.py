"""What any model costs, layer by layer: counted without running it, and measured."""

from .count import analyse
from .table import ConvUse, Coverage, Row, Sum, Table, Unknown

__all__ = ["ConvUse", "Coverage", "Row", "Sum", "Table", "Unknown", "analyse"]
