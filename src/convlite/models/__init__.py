"""The families of networks, each buildable with any kind of convolution."""

from __future__ import annotations

import copy
import inspect
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import InputError, nearest
from ..kinds import Kind, from_dict
from . import (
    deeplab,
    inception_v1,
    inception_v2,
    inception_v3,
    inception_v4,
    mobilenet,
    resnet,
    shufflenet,
    vgg,
    xception,
    xception_aligned,
)
from .backbone import Backbone, Family
from .dilation import dilate_
from .layers import Asked
from .weights import Checkpoint, Loaded, load_weights, published, read_weights

__all__ = [
    "FAMILIES",
    "Backbone",
    "Checkpoint",
    "Family",
    "Loaded",
    "create",
    "label_pixels",
    "load_weights",
    "names",
    "options",
    "published",
    "read_weights",
    "recreate",
]

FAMILIES: dict[str, Family] = {
    **xception.NETWORKS,
    **xception_aligned.NETWORKS,
    **vgg.NETWORKS,
    **resnet.NETWORKS,
    **mobilenet.NETWORKS,
    **shufflenet.NETWORKS,
    **inception_v1.NETWORKS,
    **inception_v2.NETWORKS,
    **inception_v3.NETWORKS,
    **inception_v4.NETWORKS,
}

# What `create` sets on the finished network, whatever its family.
_COMMON = ("features_only", "output_stride", "head", "dropout", "drop_path", "checkpointing", "pretrained")


HEADS = ("deeplabv3plus",)


def names() -> list[str]:
    """The networks that `create` knows."""
    return sorted(FAMILIES)


def options(name: str) -> dict[str, Any]:
    """The family's own options, with their defaults.

    Raises:
        InputError: no such network.
    """
    family = _family(name)
    known = inspect.signature(family.build).parameters
    return {option: known[option].default for option in known if option not in {"asked", *family.fixed}}


def create(
    name: str,
    *,
    conv: Kind | None = None,
    stem: Kind | None = None,
    num_classes: int | None = None,
    in_channels: int = 3,
    features_only: bool = False,
    output_stride: int | None = None,
    head: str | None = None,
    dropout: float | None = None,
    drop_path: float = 0.0,
    checkpointing: bool = False,
    pretrained: str | Path | Checkpoint | None = None,
    **own: Any,
) -> Backbone:
    """A network by its name, with fresh weights or published ones.

    Arguments:
        conv: the kind of every spatial convolution after the stem; the published one where left out. It also
            stands where the asked kind is not legal, and `net.kept` says where and why.
        stem: the kind of the stem's convolutions, which stay dense otherwise.
        num_classes: the paper's where left out; 0 gives pooled features (N, C).
        features_only: give a list of maps, described by `net.channels` and `net.strides`, in place of logits.
        output_stride: 8, 16 or 32: dilate where the maps would become smaller than that part of the image.
        head: "deeplabv3plus" labels every pixel, (N, classes, H, W), at output_stride 16 unless told.
        dropout: before the classifier; the paper's where left out.
        drop_path: stochastic depth, rising to this rate at the last residual step.
        checkpointing: trade time for memory in training.
        pretrained: a file with weights, "timm/NAME" on the hub, or what `read_weights` gave. Options that stand
            for numbers, `mode` and `eps`, are the checkpoint's unless told. `net.loaded` says what came of it.
        own: what this family alone takes; see `options(name)`.

    Returns:
        A `Backbone`.

    Raises:
        InputError: no such network, an option it does not take, a value out of range, or weights of another.
    """
    family, known = _family(name), options(name)
    for option, value in own.items():
        if option not in known:
            raise InputError(f"{name} takes no option {option!r}; {nearest(option, [*known, *_COMMON])}")
        _check_type(name, option, value, known[option])
    checkpoint = read_weights(pretrained) if isinstance(pretrained, str | Path) else pretrained
    if checkpoint is not None:
        own = {**family.numbers.get(checkpoint.layout, {}), **own}
        if "mode" in known:
            own.setdefault("mode", checkpoint.mode)
    if head is not None and features_only:
        raise InputError("features_only gives the maps that a head would read: ask for one of the two.")
    if head not in (None, *HEADS):
        raise InputError(f"There is no head {head!r}; {nearest(str(head), HEADS)}")
    classes = family.classes if num_classes is None else num_classes
    if classes < 0 or in_channels < 1:
        raise InputError(f"There can't be {classes} classes of images with {in_channels} channels.")
    net = family.build(Asked(conv, stem, classes, in_channels), **family.fixed, **own)
    if head is not None and output_stride is None:
        output_stride = deeplab.stride_of(net)
    if output_stride is not None:
        dilate_(net, output_stride)
    if head is not None:
        deeplab.segment_(net, Asked(conv, stem, classes, in_channels))
    if dropout is not None:
        net.set_dropout_(dropout)
    if drop_path:
        net.set_drop_path_(drop_path)
    if features_only:
        net.only_features_()
    net.checkpointing = checkpointing
    arguments: dict[str, Any] = {
        "conv": conv, "stem": stem, "num_classes": classes, "in_channels": in_channels,
        "features_only": features_only, "output_stride": output_stride, "dropout": dropout,
        "head": head, "drop_path": drop_path, "checkpointing": checkpointing, **own,
    }  # fmt: skip
    with suppress(InputError):  # code stands between two convolutions: a fine network, but no name makes it again
        written = {key: _written(value) for key, value in arguments.items()}
        net._convlite = {"create": {"name": name, "arguments": written}, "replaced": {}}
    if checkpoint is not None:
        net.loaded = load_weights(net, checkpoint)
    return net


def label_pixels(net: Backbone, num_classes: int) -> Backbone:
    """A copy of a network, its weights with it, that labels every pixel: DeepLabV3+'s head in place of its own.

    Arguments:
        net: trained or lightened; of the families, so that it can be saved and loaded.

    Returns:
        A network that answers (N, num_classes, H, W), at an output stride of 16; its head is still to be trained.

    Raises:
        InputError: a network without a classifier of its own, or no classes.
    """
    if net.features_only or isinstance(net.head, deeplab.DeepLabHead) or not hasattr(net, "_convlite"):
        raise InputError("Only a network of a family that classifies images can be given the head of DeepLabV3+.")
    net = copy.deepcopy(net)
    arguments = net._convlite["create"]["arguments"]
    stride = deeplab.stride_of(net)
    dilate_(net, stride)
    conv, stem = _read(arguments["conv"]), _read(arguments["stem"])
    deeplab.segment_(net, Asked(conv, stem, num_classes, arguments["in_channels"]))
    arguments.pop("aux", None)
    arguments.update(num_classes=num_classes, output_stride=stride, head="deeplabv3plus")
    return net


def recreate(record: dict[str, Any]) -> Backbone:
    """The network of `net._convlite["create"]`, with fresh weights.

    Raises:
        InputError: the record names a network, an option or a kind that does not exist.
    """
    if set(record) != {"name", "arguments"}:
        raise InputError(f"A network is recorded as its name and arguments, given {sorted(record)}.")
    return create(record["name"], **{key: _read(value) for key, value in record["arguments"].items()})


def _family(name: str) -> Family:
    if name not in FAMILIES:
        raise InputError(f"There is no network {name!r}; {nearest(name, FAMILIES)}")
    return FAMILIES[name]


def _check_type(name: str, option: str, value: Any, default: Any) -> None:
    """A value of the type that the default has; None as default says nothing, and the family looks itself."""
    wanted: dict[type, tuple[type, ...]] = {float: (float, int), tuple: (tuple, list)}
    fits = isinstance(value, wanted.get(type(default), (type(default),)))
    if default is not None and (not fits or isinstance(value, bool) != isinstance(default, bool)):
        raise InputError(f"{option}={value!r} does not fit {name}: give a value like {default!r}.")


def _read(value: Any) -> Any:
    if isinstance(value, dict):
        return from_dict(value)
    return tuple(value) if isinstance(value, list) else value


def _written(value: Any) -> Any:
    if isinstance(value, Kind):
        return value.to_dict()
    if isinstance(value, tuple):
        return list(value)
    if value is None or isinstance(value, str | int | float | list):
        return value
    raise InputError(f"{value!r} can't be written as JSON.")
