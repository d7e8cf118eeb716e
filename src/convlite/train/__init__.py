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
from .segmentation import Segmentation, SegmentScore, score_masks
from .task import Classification, Task, task_of

__all__ = [
    "RECIPES",
    "Classification",
    "Compute",
    "Epoch",
    "History",
    "Keep",
    "Recipe",
    "Score",
    "SegmentScore",
    "Segmentation",
    "Task",
    "augmentation",
    "evaluate",
    "find_batch_size",
    "recipe",
    "score_masks",
    "seed_everything",
    "task_of",
    "train",
]
