"""What the verbs that work on data share: how it is loaded, and what is told of a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from torch import nn

from .. import data as datasets
from ..analyse import analyse
from ..errors import InputError
from ..files import read_text
from ..models import Checkpoint, read_weights
from ..preprocess import Preprocess
from ..report import tables
from ..train import Score, SegmentScore
from .options import Size


def weights_of(source: str | None) -> Checkpoint | None:
    """The published weights that --pretrained names."""
    return None if source is None else read_weights(source)


def load(
    source: str,
    size: Size | None,
    about: Any,
    skip_corrupt: bool,
    *,
    any_classes: bool = False,
    classes: str | None = None,
    ignore: int | None = None,
    streaming: bool = False,
) -> datasets.Data:
    """The data as a network takes it: of that size, or else treated as what it was trained on.

    Arguments:
        classes, ignore: of masks; as they were when the network was trained, unless given.

    Raises:
        InputError: other classes than the network was trained on, unless `any_classes` will do.
    """
    wanted: dict[str, Any] = {} if size is None else {"channels": size[0], "size": size[1:]}
    if "preprocess" in about:
        how = Preprocess.from_dict(about["preprocess"])
        wanted = {"preprocess": how if size is None else how.resized(size)}
    if classes is not None:
        wanted["classes"] = int(classes) if classes.isdecimal() else read_text(Path(classes)).splitlines()
    elif "ignore" in about:
        wanted["classes"] = about["classes"]
    if ignore is not None or "ignore" in about:
        wanted["ignore"] = about["ignore"] if ignore is None else ignore
    loaded = datasets.load(source, skip_corrupt=skip_corrupt, streaming=streaming, **wanted)
    if loaded.ignore is None and (classes is not None or ignore is not None):
        raise InputError(f"--classes and --ignore are for masks, and {source} has none: leave them out.")
    if "classes" in about and not any_classes and ("ignore" in about) != (loaded.ignore is not None):
        what = ("images", "masks") if loaded.ignore is not None else ("masks", "images")
        raise InputError(f"The network was trained on classes of {what[0]}, and {source} has those of {what[1]}.")
    if not any_classes and "classes" in about and tuple(about["classes"]) != loaded.classes:
        raise InputError(
            f"The network was trained on the classes {', '.join(about['classes'][:5])}..., and {source} has "
            f"{', '.join(loaded.classes[:5])}...: give data of the same classes."
        )
    return loaded


def side(net: nn.Module, data: datasets.Data, score: Score | SegmentScore) -> dict[str, Any]:
    """What a network costs for one picture, and how good it is."""
    table = analyse(net, data.shape)
    cost = {"params": table.params, "macs": table.macs}
    if isinstance(score, SegmentScore):
        return cost | {"miou": score.miou, "accuracy": score.accuracy, "pixels": score.pixels}
    return cost | {"accuracy": score.top1, "correct": score.correct, "count": score.count}


def score_table(score: Score | SegmentScore, classes: Sequence[str]) -> RenderableType:
    """How good a network is."""
    if isinstance(score, SegmentScore):
        return tables.pixel_score(score, classes)
    return tables.score(score, classes)


def next_command(verb: str, folder: Path, data: str) -> str:
    """Where the result is, and what one mostly does with it."""
    more = f" --macs 0.4 --out {folder}-light" if verb == "lighten" else ""
    return f"Written to {folder}; next:\n  convlite {verb} {folder} --data {data}{more}"
