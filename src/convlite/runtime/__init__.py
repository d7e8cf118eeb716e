"""What a trained network is used for."""

from .engines import ENGINES, PRECISIONS, Session, open_engine, why_not
from .export import Exported, export, read_exported
from .optimise import optimise
from .predict import Prediction, find_files, predict

__all__ = [
    "ENGINES",
    "PRECISIONS",
    "Exported",
    "Prediction",
    "Session",
    "export",
    "find_files",
    "open_engine",
    "optimise",
    "predict",
    "read_exported",
    "why_not",
]
