"""The one place where a MODEL of the command line becomes a network."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from .. import kinds
from ..errors import InputError, RunError, nearest
from ..models import FAMILIES, Checkpoint, create, published
from ..models.saved import load, read_config
from ..models.weightless import weightless
from ..preprocess import Preprocess
from .options import Size


@dataclass(frozen=True)
class Found:
    """A network, and what is known of it.

    Arguments:
        net: in eval mode.
        input: (C, H, W) that it was made for, where known.
        about: what was saved beside its weights: classes, preprocess, metrics.
    """

    net: nn.Module
    input: Size | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def size(self, given: Size | None) -> Size:
        """The input to use: what was given, or else what the network was made for.

        Raises:
            InputError: neither is known.
        """
        if given is None and self.input is None:
            raise InputError("This model does not say what images it takes: give their size, as --input 3x224x224.")
        return given or self.input  # type: ignore[return-value]


def find(
    model: str,
    *,
    conv: str | None = None,
    settings: Sequence[str] = (),
    pretrained: Checkpoint | None = None,
    classes: int | None = None,
    channels: int | None = None,
    trained: bool = False,
    like: str | None = None,
    weights: bool = True,
) -> Found:
    """The network that `model` names.

    Arguments:
        conv: the kind of a family's spatial convolutions.
        settings: its own options, each as "width=0.5".
        pretrained: weights for it.
        classes, channels: of a fresh network of a family or of timm; as published where left out.
        trained: fetch published weights for timm's networks; the others have those they come with.
        like: the MODEL that a saved network of no family was lightened from.
        weights: False where only shapes are needed: a family's network is then made without numbers.

    Raises:
        InputError: no such model, or an option that it can't take.
        RunError: published weights could not be fetched.
    """
    about = about_of(model, pretrained, trained)
    if model in FAMILIES:
        kind = None if conv is None else kinds.parse(conv)
        size = (channels or FAMILIES[model].input[0], *FAMILIES[model].input[1:])
        own = settings_of("--set", "width=0.5", settings)
        with contextlib.nullcontext() if weights or pretrained else weightless():
            net = create(model, conv=kind, num_classes=classes, in_channels=size[0], pretrained=pretrained, **own)
        if net.kept and not net.placed:
            raise InputError(f"{kind} can stand nowhere in {model}: {next(iter(net.kept.values()))}.")
        if pretrained is not None:
            size = about["preprocess"]["channels"], *about["preprocess"]["size"]
        return Found(net.eval(), size, about)
    for option, given in (("--conv", conv), ("--set", settings), ("--pretrained", pretrained)):
        if given:
            raise InputError(f"{option} is for the families, and {model!r} is none of them: leave it out.")
    if model.startswith("timm:"):
        return _timm(model.removeprefix("timm:"), about, classes, channels, trained)
    if _in_a_file(model):
        file, _, factory = model.rpartition(":")
        return Found(_made_by(Path(file), factory).eval())
    return _saved(Path(model), about, like)


def about_of(model: str, pretrained: Checkpoint | None = None, trained: bool = False) -> Mapping[str, Any]:
    """What is known of the weights of a MODEL: classes, preprocess, metrics; nothing where they are fresh.

    Arguments: as those of `find`.

    Raises:
        InputError: no such model.
    """
    if model in FAMILIES and pretrained is not None:
        return {"preprocess": (pretrained.preprocess or published(model)).to_dict()}
    if model.startswith("timm:") and trained:
        said = _timm_package(model).get_pretrained_cfg(model.removeprefix("timm:"))
        return {} if said is None else {"preprocess": Preprocess.from_timm(said.to_dict()).to_dict()}
    if model in FAMILIES or model.startswith("timm:") or _in_a_file(model):
        return {}
    if Path(model).is_dir():
        about: Mapping[str, Any] = read_config(model)["about"]
        return about
    alike = difflib.get_close_matches(model, FAMILIES, cutoff=0.5)
    hint = f"did you mean {' or '.join(alike)}?" if alike else "the command convlite models lists the families."
    raise InputError(
        f"There is no model {model!r}, neither a family nor a saved folder, timm:NAME or file.py:factory; {hint}"
    )


def _in_a_file(model: str) -> bool:
    return model.rpartition(":")[0].endswith(".py")


def _saved(folder: Path, about: Mapping[str, Any], like: str | None) -> Found:
    created = read_config(folder)["create"]
    if like is None and not created:
        raise InputError(
            f"{folder} was saved from a network of no family: say what it was made from, as --like file.py:factory."
        )
    net = load(folder, None if like is None else find(like).net)
    input: Size | None = None
    if "preprocess" in about:
        input = (about["preprocess"]["channels"], *about["preprocess"]["size"])
    elif created:
        input = (created["arguments"].get("in_channels", 3), *FAMILIES[created["name"]].input[1:])
    return Found(net, input, about)


def _made_by(file: Path, factory: str) -> nn.Module:
    """What a function, a class or a module of a Python file makes."""
    if not file.is_file():
        raise InputError(f"There is no file {file}: give the Python file that makes the network.")
    name = f"_{file.stem}"  # so that a file called torch.py hides nothing
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    sys.path.insert(0, str(file.parent.resolve()))  # as when the file itself is run: it may import its neighbours
    spec.loader.exec_module(module)  # the user's own code: what it raises, it says itself
    made = getattr(module, factory, None)
    if made is None:
        public = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise InputError(f"{file} has no {factory!r}; {nearest(factory, public)}")
    net = made if isinstance(made, nn.Module) else made() if callable(made) else made
    if not isinstance(net, nn.Module):
        raise InputError(f"{factory} of {file} gives a {type(net).__name__}: a network is a torch.nn.Module.")
    return net


def settings_of(flag: str, example: str, texts: Sequence[str]) -> dict[str, Any]:
    """{"width": 0.5} of "width=0.5"."""
    found = {}
    for text in texts:
        option, equals, value = text.partition("=")
        if not (option and equals and value):
            raise InputError(f"{flag} takes OPTION=VALUE, as {example}; given {text!r}.")
        try:
            found[option] = json.loads(value)
        except json.JSONDecodeError:
            found[option] = value  # a word
    return found


def _timm_package(model: str) -> Any:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise InputError(
            f"{model} needs the package {error.name}, which is not installed: pip install timm."
        ) from None
    except (ImportError, RuntimeError) as error:  # a torchvision of another build than torch
        raise InputError(
            f"timm can't be imported here ({error}): install the torchvision that fits this torch."
        ) from error
    return timm


def _timm(name: str, about: Mapping[str, Any], classes: int | None, channels: int | None, trained: bool) -> Found:
    timm = _timm_package(f"timm:{name}")
    if not timm.is_model(re.sub(r"\..*", "", name)):
        alike = timm.list_models(f"*{name[:6]}*")[:3]
        raise InputError(
            f"timm has no model {name!r}; "
            + (f"it has {', '.join(alike)}." if alike else "see timm.list_models().")
        )
    options: dict[str, Any] = {"num_classes": classes, "in_chans": channels}
    given = {key: value for key, value in options.items() if value is not None}
    try:
        net: Any = timm.create_model(name, pretrained=trained, **given)
    except (OSError, RuntimeError) as error:
        raise RunError(
            f"timm could not make {name} with published weights: {' '.join(str(error).split())[:200]}"
        ) from error
    channels_in, height, width = net.default_cfg["input_size"]
    return Found(net.eval(), (channels or channels_in, height, width), about)
