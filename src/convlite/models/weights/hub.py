"""Checkpoints from the Hugging Face hub, kept in its cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import InputError, need
from ...files import read_json
from ...preprocess import Preprocess

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def download(repository: str) -> Path:
    """The path of the weights of "timm/NAME"; downloaded once, its size and checksum verified by the hub's client.

    Raises:
        InputError: huggingface_hub is not installed, no such repository, or no connection.
    """
    hub = need("huggingface_hub", "hub")
    try:
        hub.hf_hub_download(repository, CONFIG)
        return Path(hub.hf_hub_download(repository, WEIGHTS))
    except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError, OSError) as error:
        raise InputError(
            f"Can't get {repository} from the Hugging Face hub ({type(error).__name__}): check the name and the "
            f"connection, or download its {WEIGHTS} elsewhere and give the path of that file."
        ) from error


def preprocess(weights: Path) -> Preprocess | None:
    """What the configuration beside the weights says, timm's or our own; None where there is none."""
    path = weights.with_name(CONFIG)
    config: Any = read_json(path) if path.is_file() else {}
    if not isinstance(config, dict):
        return None
    if isinstance(said := config.get("pretrained_cfg"), dict):
        return Preprocess.from_timm(said)
    about = config.get("about")
    known = about.get("preprocess") if isinstance(about, dict) else None
    return None if known is None else Preprocess.from_dict(known)
