"""Labelled images in memory: `load` gives a `Data`, the same for everybody who loads the same source."""

from .loading import load
from .values import Data, Images

__all__ = ["Data", "Images", "load"]
