"""Published weights: read from a file, and put into our networks by position."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...preprocess import Preprocess
from ..backbone import Backbone
from ..saved import WEIGHTS, read_config
from . import files, hub
from .layouts import arrange
from .place import OWN, Checkpoint, Mode, place
from .preprocessing import published

__all__ = ["Checkpoint", "Loaded", "load_weights", "published", "read_weights"]


@dataclass(frozen=True)
class Loaded:
    """What came out of a checkpoint.

    Attributes:
        layout: whose file it is: "convlite", "timm xception", "keras weights.h5"...
        mode: whose numbers it was trained with: "keras" (batch norm eps 1e-3, SAME pooling), or "timm". An
            Xception gives the published outputs when made with `mode` the same.
        preprocess: of its images.
        left_out: {tensor in the file: why the network did not take it}.
        fresh: tensors of the network that the file does not fill; they keep what they had.
    """

    layout: str
    mode: Mode
    preprocess: Preprocess
    left_out: Mapping[str, str]
    fresh: tuple[str, ...]


def read_weights(source: str | Path) -> Checkpoint:
    """The tensors of a checkpoint in the order of the network that they belong to.

    Arguments:
        source: the path of a file (.safetensors, .pth, .pt, .bin, .h5), or "timm/NAME" on the Hugging Face hub.

    Raises:
        InputError: no such file, another type, cut short, or names that no known library gives.
    """
    text = str(source)
    path = hub.download(text) if text.startswith("timm/") and not Path(text).exists() else Path(source)
    layout, state = files.read(path)
    if not layout:
        arranged = arrange(state)
        layout, order = arranged or (OWN, list(state))
        state = {name: state[name] for name in order}
    return Checkpoint(text, layout, state, _mode(layout, path), hub.preprocess(path))


def load_weights(net: Backbone, source: str | Path | Checkpoint) -> Loaded:
    """Fill a network from a checkpoint, in place; nothing changes where it doesn't fit.

    A tensor goes where it stands in the order of layers, and only if it has the shape of that place. Another
    number of classes leaves the classifier as it was; another number of input channels takes the sum of the
    first convolution over its channels (for 1), or repeats it, scaled to keep the size of the output.

    Arguments:
        net: made by `create`.
        source: what `read_weights` takes, or what it gave.

    Raises:
        InputError: the file can't be read, or belongs to another network.
    """
    checkpoint = source if isinstance(source, Checkpoint) else read_weights(source)
    left_out, fresh = place(net, checkpoint)
    made: Mapping[str, Any] = getattr(net, "_convlite", {}).get("create", {"name": "", "arguments": {}})
    name, mode = made["name"], made["arguments"].get("mode", checkpoint.mode)
    if mode != checkpoint.mode:
        warnings.warn(
            f"{checkpoint.source} was trained with the numbers of {checkpoint.mode!r}, and {name} was made with "
            f"mode={mode!r}: its outputs will differ a little from the published ones.",
            stacklevel=2,
        )
    preprocess = checkpoint.preprocess or published(name)
    return Loaded(checkpoint.layout, checkpoint.mode, preprocess, left_out, tuple(fresh))


def _mode(layout: str, path: Path) -> Mode:
    """Keras's own files have its numbers, and ours have what the configuration beside them says."""
    if layout == OWN and path.name == WEIGHTS:
        with suppress(InputError):  # no configuration, or not ours
            record = read_config(path.parent)["create"]
            return "keras" if record and record["arguments"].get("mode") == "keras" else "timm"
    return "keras" if layout.startswith("keras") else "timm"
