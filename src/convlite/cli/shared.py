"""What the verbs that work on data share: how it is loaded, and what is told of a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from .. import data as datasets
from ..analyse import analyse
from ..errors import InputError
from ..models import Checkpoint, read_weights
from ..preprocess import Preprocess
from ..train import Score
from .options import Size


def weights_of(source: str | None) -> Checkpoint | None:
    """The published weights that --pretrained names."""
    return None if source is None else read_weights(source)


def load(
    source: str, size: Size | None, about: Any, skip_corrupt: bool, *, any_classes: bool = False
) -> datasets.Data:
    """The data as a network takes it: of that size, or else treated as what it was trained on.

    Raises:
        InputError: other classes than the network was trained on, unless `any_classes` will do.
    """
    wanted: dict[str, Any] = {} if size is None else {"channels": size[0], "size": size[1:]}
    if "preprocess" in about:
        how = Preprocess.from_dict(about["preprocess"])
        wanted = {"preprocess": how if size is None else how.resized(size)}
    loaded = datasets.load(source, skip_corrupt=skip_corrupt, **wanted)
    if not any_classes and "classes" in about and tuple(about["classes"]) != loaded.classes:
        raise InputError(
            f"The network was trained on the classes {', '.join(about['classes'][:5])}..., and {source} has "
            f"{', '.join(loaded.classes[:5])}...: give data of the same classes."
        )
    return loaded


def side(net: nn.Module, data: datasets.Data, score: Score) -> dict[str, Any]:
    """What a network costs for one picture, and how good it is."""
    table = analyse(net, data.shape)
    return {
        "params": table.params, "macs": table.macs,
        "accuracy": score.top1, "correct": score.correct, "count": score.count,
    }  # fmt: skip


def next_command(verb: str, folder: Path, data: str) -> str:
    """Where the result is, and what one mostly does with it."""
    more = f" --macs 0.4 --out {folder}-light" if verb == "lighten" else ""
    return f"Written to {folder}; next:\n  convlite {verb} {folder} --data {data}{more}"
