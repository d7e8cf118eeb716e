"""Turning a trained network into a light one."""

from .apply import apply
from .build import build
from .decompose import decompose
from .lighten import lighten
from .plan import Budget, Left, Plan, Step
from .record import Light, Record, Stage
from .study import Study, study

__all__ = [
    "Budget",
    "Left",
    "Light",
    "Plan",
    "Record",
    "Stage",
    "Step",
    "Study",
    "apply",
    "build",
    "decompose",
    "lighten",
    "study",
]
