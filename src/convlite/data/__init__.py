"""Labelled images, in memory or in files: `load` gives a `Data`, the same for all who load the same source."""

from .files import Files
from .images import Images
from .loading import load
from .stream import Stream
from .values import Data, Source, in_random_order

__all__ = ["Data", "Files", "Images", "Source", "Stream", "in_random_order", "load"]
