"""Training, and measuring what was learnt."""

from .batches import augmentation
from .compute import Compute
from .folder import Keep
from .history import Epoch, History
from .loop import train
from .memory import find_batch_size
from .metrics import Score, evaluate
from .recipe import Recipe
from .recipes import RECIPES, recipe
from .seeds import seed_everything
from .task import Classification, Task

__all__ = [
    "RECIPES",
    "Classification",
    "Compute",
    "Epoch",
    "History",
    "Keep",
    "Recipe",
    "Score",
    "Task",
    "augmentation",
    "evaluate",
    "find_batch_size",
    "recipe",
    "seed_everything",
    "train",
]
