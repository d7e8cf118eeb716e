"""The command line: each verb calls public functions and shows what they return."""

from .app import main

__all__ = ["main"]
