"""A network that is ready for pictures: on an engine, with its preprocessing and the names of its classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..preprocess import Preprocess
from ..train.metrics import as_evaluated, device_of
from .choice import AUTO, choose
from .engines import Array, Session
from .export import SUFFIXES
from .exported import read_exported

Named = tuple[tuple[str, float], ...]  # classes, each with a probability or a share of the pixels, best first


@dataclass(frozen=True)
class Predictor:
    """What `predict` and `serve` ask.

    Arguments:
        session: the network on its engine.
        how: how it takes pictures.
        classes: in the order of its scores.
        labels_pixels: it gives every pixel a class, (N, classes, H, W), and not every image, (N, classes).
    """

    session: Session
    how: Preprocess
    classes: tuple[str, ...]
    labels_pixels: bool

    def scores(self, pixels: Tensor) -> Array:
        """Of pixels, uint8 (N, C, H, W): float32 (N, classes), or (N, classes, H, W)."""
        return self.run(self.prepare(pixels))

    def prepare(self, pixels: Tensor) -> Array:
        """Pixels, uint8 (N, C, H, W), as the engine takes them: float32, in the layout that it computes in."""
        images = self.how.normalise(pixels).numpy()  # channels last in memory
        return images if "torch" in self.session.name else np.ascontiguousarray(images)

    def run(self, images: Array) -> Array:
        """The network's scores for prepared images."""
        return self.session(images)

    def best(self, scores: Array, top: int) -> Named:
        """The likeliest classes by an image's scores, (classes,)."""
        shares = np.exp(
            scores.astype(np.float64) - scores.max()
        )  # in numpy: torch's threads would wait for engines'
        shares /= shares.sum()
        order = np.argsort(-shares, kind="stable")[:top]
        return tuple((self.classes[i], float(shares[i])) for i in order)


def predictor(
    network: nn.Module | str | Path,
    how: Preprocess | None = None,
    classes: Sequence[str] | None = None,
    *,
    engine: str = AUTO,
    count: float = 1,
    batch: int = 16,
    threads: int | None = None,
    tell: Callable[[str], object] = lambda text: None,
) -> Predictor:
    """Make a network ready for pictures.

    Arguments:
        network: a module, which is left as it was; or an exported file, which knows its preprocessing and classes.
        how: how the network takes its pictures: `Data.preprocess`, or that of published weights.
        classes: the names; "class 0" and so on where nothing is known of them.
        engine, count, batch, threads, tell: see `choose`.

    Raises:
        InputError: a network that doesn't take such images, or has another number of classes; or no engine.
    """
    if not isinstance(network, nn.Module):
        said = read_exported(network)
        network, how, classes = said.path, how or said.preprocess, classes or said.classes or None
    if how is None:
        raise InputError(
            f"{network if isinstance(network, Path) else 'The network'} does not say how it takes pictures: export "
            "a folder that convlite trained, or give the preprocessing."
        )
    given = _tried(network, how) if isinstance(network, nn.Module) else ()
    session = choose(network, how.shape, engine=engine, count=count, batch=batch, threads=threads, tell=tell)
    given = given or session(np.zeros((1, *how.shape), np.float32)).shape
    if len(given) not in (2, 4) or given[2:] not in ((), how.size):
        raise InputError(f"The network answers an image with {given}: expected was one score a class.")
    if classes is not None and len(classes) != given[1]:
        raise InputError(
            f"The network tells {given[1]} classes apart, and {len(classes)} are named: create it with "
            f"num_classes={len(classes)}, or name {given[1]}."
        )
    names = tuple(classes) if classes is not None else tuple(f"class {i}" for i in range(given[1]))
    return Predictor(session, how, names, len(given) == 4)


def _tried(model: nn.Module, how: Preprocess) -> tuple[int, ...]:
    """The shape of a module's answer to one black image."""
    try:
        with as_evaluated(model), torch.no_grad():
            answer = model(torch.zeros(1, *how.shape, device=device_of(model)))
    except RuntimeError as error:
        size = "x".join(map(str, how.shape))
        reason = str(error).splitlines()[0]
        raise InputError(f"The network can't take images of {size} ({reason}): give others.") from error
    if not isinstance(answer, Tensor):
        raise InputError(f"The network answers with a {type(answer).__name__}: expected was a tensor of scores.")
    return tuple(answer.shape)


def is_exported(model: str) -> bool:
    """Whether a MODEL is an exported file."""
    return Path(model).suffix in SUFFIXES.values()
