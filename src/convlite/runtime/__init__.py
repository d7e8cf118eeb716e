"""What a trained network is used for."""

from .optimise import optimise
from .predict import Prediction, find_files, predict

__all__ = ["Prediction", "find_files", "optimise", "predict"]
