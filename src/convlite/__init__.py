"""convlite makes convolutional networks light."""

from . import kinds, nn
from .cost import Cost

__version__ = "0.1.0"
__all__ = ["Cost", "kinds", "nn"]
