"""convlite makes convolutional networks light."""

from . import _importing, kinds, nn
from .analyse import analyse
from .cost import Cost
from .errors import ConvliteError, InputError, RunError
from .lighten import Budget, Plan, apply, lighten, study
from .models import create
from .models.saved import load, save
from .models.surgery import as_convs

_importing.done()

__version__ = "0.1.0"
__all__ = [
    "Budget",
    "ConvliteError",
    "Cost",
    "InputError",
    "Plan",
    "RunError",
    "analyse",
    "apply",
    "as_convs",
    "create",
    "kinds",
    "lighten",
    "load",
    "nn",
    "save",
    "study",
]
