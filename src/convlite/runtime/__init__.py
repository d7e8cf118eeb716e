"""What a trained network is used for."""

from .bench import Bench, bench
from .choice import choose
from .engines import ENGINES, PRECISIONS, Session, open_engine, why_not
from .export import export
from .exported import Exported, read_exported
from .optimise import optimise
from .predict import Labels, Prediction, find_files, predict
from .predictor import Predictor, predictor

__all__ = [
    "ENGINES",
    "PRECISIONS",
    "Bench",
    "Exported",
    "Labels",
    "Prediction",
    "Predictor",
    "Session",
    "bench",
    "choose",
    "export",
    "find_files",
    "open_engine",
    "optimise",
    "predict",
    "predictor",
    "read_exported",
    "why_not",
]
