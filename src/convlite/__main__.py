"""`python -m convlite`, for where the `convlite` command is not on the path."""

import sys

from .cli import main

sys.exit(main())
