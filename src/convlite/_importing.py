"""No garbage collection while the package is imported.

Importing torch and what stands on it makes some hundred thousand objects that all stay; looking through them for
garbage, again and again while there are more, is a tenth of the time that a short command takes.
"""

import gc

_collected = gc.isenabled()
gc.disable()


def done() -> None:
    """From now on as it was before."""
    if _collected:
        gc.enable()
