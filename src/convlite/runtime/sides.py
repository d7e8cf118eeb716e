"""How long networks take beside each other, in torch and on convlite's own kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from ..analyse.latency import measure
from ..errors import ConvliteError
from .choice import unchanged
from .engines import Session, open_engine, why_not
from .optimise import optimise

ENGINE = "convlite"


def times(
    nets: Mapping[str, nn.Module],
    shape: tuple[int, int, int],
    batches: Sequence[int] = (1,),
    seconds: float = 2.0,
    tell: Callable[[str], object] = lambda text: None,
) -> dict[str, dict[str, Any]]:
    """Milliseconds of each network for a batch, measured in turn.

    The kernels are left out where there is no compiler, or where they can't run all of the networks; why is told.

    Arguments:
        nets: on the processor.
        shape: channels, height and width of an image.
        seconds: about as long as each batch size is measured.
        tell: gets a sentence.

    Returns:
        name → {"1 image, torch": a timing as plain JSON types, ...}.
    """
    images = torch.randn(max(2, *batches), *shape, generator=torch.Generator().manual_seed(0))
    ways: dict[str, dict[str, Session]] = {"torch": {name: unchanged(net) for name, net in nets.items()}}
    reason = why_not(ENGINE)
    if reason is None:
        try:
            opened = {name: open_engine(optimise(net, images[:2]), ENGINE) for name, net in nets.items()}
            for session in opened.values():
                session(images[:1].numpy())
            ways["our kernels"] = opened
        except ConvliteError as error:
            reason = str(error).rstrip(".")
    if reason is not None:
        tell(f"Not timed on convlite's own kernels: {reason}.")
    found: dict[str, dict[str, Any]] = {name: {} for name in nets}
    for batch in batches:
        calls = {
            (name, f"{batch:,} image{'s' if batch > 1 else ''}, {way}"): partial(session, images[:batch].numpy())
            for way, sessions in ways.items()
            for name, session in sessions.items()
        }
        for (name, what), timing in measure(calls, rounds=40, seconds=seconds).items():
            found[name][what] = timing.to_dict()
    return found
