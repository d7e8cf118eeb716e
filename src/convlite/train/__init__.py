"""Training, and measuring what was learnt."""

from .batches import augmentation
from .history import Epoch, History
from .loop import train
from .metrics import Score, evaluate
from .recipe import RECIPES, Recipe, recipe
from .seeds import seed_everything

__all__ = [
    "RECIPES",
    "Epoch",
    "History",
    "Recipe",
    "Score",
    "augmentation",
    "evaluate",
    "recipe",
    "seed_everything",
    "train",
]
