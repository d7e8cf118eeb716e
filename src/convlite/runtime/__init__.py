"""What a trained network is used for."""

from .bench import Bench, bench
from .engines import ENGINES, PRECISIONS, Session, open_engine, why_not
from .export import export
from .exported import Exported, read_exported
from .optimise import optimise
from .predict import Prediction, find_files, predict

__all__ = [
    "ENGINES",
    "PRECISIONS",
    "Bench",
    "Exported",
    "Prediction",
    "Session",
    "bench",
    "export",
    "find_files",
    "open_engine",
    "optimise",
    "predict",
    "read_exported",
    "why_not",
]
