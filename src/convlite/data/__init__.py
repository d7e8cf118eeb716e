"""Labelled images, in memory or in files: `load` gives a `Data`, the same for all who load the same source."""

from .files import Files
from .images import Images
from .loading import load
from .values import Data, Source

__all__ = ["Data", "Files", "Images", "Source", "load"]
