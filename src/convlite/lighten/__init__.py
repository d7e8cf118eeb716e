"""Turning a trained network into a light one."""

from .apply import apply
from .decompose import decompose
from .lighten import Light, Record, Stage, lighten
from .plan import Budget, Left, Plan, Step

__all__ = ["Budget", "Left", "Light", "Plan", "Record", "Stage", "Step", "apply", "decompose", "lighten"]
