"""What a trained network is used for."""

from .predict import Prediction, find_files, predict

__all__ = ["Prediction", "find_files", "predict"]
