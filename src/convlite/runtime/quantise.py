"""Eight bits in the place of thirty-two: weights by the channel, activations by the tensor, fitted to images.

NNCF chooses what is quantised, and the ranges. What is added here: the weights of a layer are rounded together (see
`rounding`), the loss is measured on images that nothing was fitted to, and where it is too large, layers go back to
fp32 by what each of them does to the answers, depthwise ones first, since they have few numbers to average their
errors over.
"""

from __future__ import annotations

import ast
import contextlib
import logging
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import InputError, RunError, need
from .exported import INPUT, Quantised
from .rounding import round_

Scores = Callable[[np.ndarray], np.ndarray]
MAX_DROP = 0.01
RANKED_ON = 32  # images; a layer's effect on scores is a mean over many numbers, and needs few
STEPS = 8  # in how many parts the layers of a kind go back to fp32
_BATCH = 16


@dataclass(frozen=True)
class Calibration:
    """What quantisation is fitted to, and what it is measured on.

    Arguments:
        images: float32 (N, C, H, W), as the network takes them; a few hundred.
        held_out: others, to measure on; a quarter of `images` where left out.
        labels: of `held_out`, (N,) or (N, H, W), below 0 where a pixel is no class, so that accuracy counts; where
            left out, agreement with fp32 does.
        max_drop: how much of the accuracy, or of the agreement, may be lost.

    Raises:
        InputError: too few images, of unlike sizes, not finite, or with other labels.
    """

    images: Tensor
    held_out: Tensor | None = None
    labels: Tensor | None = None
    max_drop: float = MAX_DROP

    def __post_init__(self) -> None:
        if self.images.dim() != 4 or len(self.images) < (4 if self.held_out is None else 1):
            raise InputError(
                f"Quantisation is fitted to images (N, C, H, W), four or more, given {tuple(self.images.shape)}."
            )
        tested = self.images[3::4] if self.held_out is None else self.held_out
        if not len(tested) or tested.shape[1:] != self.images.shape[1:]:
            raise InputError(
                f"The held-out images are {tuple(tested.shape)}, and those to fit to {tuple(self.images.shape)}: "
                "give one or more of the same size."
            )
        if not (self.images.isfinite().all() and tested.isfinite().all()):
            raise InputError("Some of the images to fit int8 to are not finite: check how pictures are normalised.")
        if self.labels is not None and (self.held_out is None or len(self.labels) != len(tested)):
            raise InputError("Labels belong to the held-out images: give a label for each of these.")
        if not 0 <= self.max_drop < 1:
            raise InputError(f"max_drop is a share, from 0 to below 1, not {self.max_drop}.")

    @property
    def fitted(self) -> Tensor:
        """The images that nothing is measured on."""
        if self.held_out is not None:
            return self.images
        return self.images[[i for i in range(len(self.images)) if i % 4 != 3]]

    @property
    def tested(self) -> np.ndarray:
        """The images that it is measured on."""
        held_out = self.images[3::4] if self.held_out is None else self.held_out
        return held_out.contiguous().numpy()


def quantise(plain: Any, given: Calibration, run: Callable[[Any], Scores]) -> tuple[Any, Quantised]:
    """An ONNX model in int8, written as pairs of QuantizeLinear and DequantizeLinear that engines fuse.

    Arguments:
        plain: an `onnx.ModelProto` in fp32; it is left as it was.
        run: opens a model on the engine that it is measured on.

    Returns:
        The model, and what it cost.

    Raises:
        InputError: the model's scores are not finite.
        RunError: the drop stays above the bound whatever is left in fp32.
    """
    images, few = given.tested, given.tested[:RANKED_ON]
    expected = answers(run(plain), images)
    if not np.isfinite(expected).all():
        raise InputError("The network's scores for these images are not finite: check its weights.")
    whole = _nncf(plain, given.fitted)
    round_(whole, plain, given.fitted)
    layers = _layers(plain, whole)

    def cost(kept: Iterable[str]) -> Quantised:
        found = answers(run(with_fp32(whole, plain, kept)), images)
        return compared(expected, found, given.labels, [layers[name].path for name in kept])

    def error(kept: Iterable[str]) -> float:
        found = answers(run(with_fp32(whole, plain, kept)), few)
        return float(np.square(found - expected[: len(few)], dtype=np.float64).mean())

    kept: list[str] = []
    found = cost(kept)
    for rank in sorted({layer.rank for layer in layers.values()}):
        if found.drop <= given.max_drop:
            break
        effect = {name: error([*kept, name]) for name, layer in layers.items() if layer.rank == rank}
        ordered, before = sorted(effect, key=lambda name: effect[name]), kept
        step = math.ceil(len(ordered) / STEPS)
        for count in range(step, len(ordered) + step, step):
            kept = [*before, *ordered[:count]]
            found = cost(kept)
            if found.drop <= given.max_drop:
                break
    if found.drop > given.max_drop or len(kept) == len(layers):
        raise RunError(
            f"int8 loses more than the bound of {given.max_drop:.2%} on {found.images} images, whatever layers are "
            "left in fp32: allow a larger drop, or give more images to fit to."
        )
    return with_fp32(whole, plain, kept), found


def answers(run: Scores, images: np.ndarray) -> np.ndarray:
    """The scores for many images, (N, classes) or (N, classes, H, W)."""
    return np.concatenate([run(images[i : i + _BATCH]) for i in range(0, len(images), _BATCH)])


def compared(expected: np.ndarray, found: np.ndarray, labels: Tensor | None, kept: Sequence[str] = ()) -> Quantised:
    """How two networks' scores of the same images agree, and how many are right."""
    before, after = expected.argmax(1), found.argmax(1)
    accuracy = None
    if labels is not None:
        true = labels.numpy()
        known = true >= 0
        accuracy = float((before == true)[known].mean()), float((after == true)[known].mean())
    return Quantised(tuple(kept), len(found), float((before == after).mean()), accuracy)


def with_fp32(quantised: Any, plain: Any, names: Iterable[str]) -> Any:
    """A copy of the quantised model in which the nodes of these names are those of the plain one."""
    onnx = need("onnx", "ship")
    mixed = onnx.ModelProto()
    mixed.CopyFrom(quantised)
    graph, wanted = mixed.graph, set(names)
    originals = {node.name: node for node in plain.graph.node if node.name in wanted}
    numbers = {tensor.name: tensor for tensor in plain.graph.initializer}
    for node in graph.node:
        if node.name in wanted:
            node.CopyFrom(originals[node.name])
            for i, name in enumerate(node.input):
                if name in numbers:
                    node.input[i] = f"{name}/fp32"  # the bias of that name is corrected for int8
                    graph.initializer.add().CopyFrom(numbers[name])
                    graph.initializer[-1].name = node.input[i]
    _prune(graph)
    return mixed


def _prune(graph: Any) -> None:
    """Take out what nothing reads."""
    outputs = {value.name for value in graph.output}
    while True:
        read = outputs | {name for node in graph.node for name in node.input}
        dead = [node for node in graph.node if not read & set(node.output)]
        if not dead:
            break
        for node in dead:
            graph.node.remove(node)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)


@dataclass(frozen=True)
class _Layer:
    path: str  # of the module; with the operation, where it is not the module's only one
    rank: int  # of those that go back to fp32 first: depthwise, then all with weights, then sums and the like


def _layers(plain: Any, whole: Any) -> dict[str, _Layer]:
    """By the node's name, what was quantised: all whose input the plain model has otherwise."""
    inputs = {node.name: list(node.input) for node in whole.graph.node}
    weights = {tensor.name: tensor.dims for tensor in plain.graph.initializer if len(tensor.dims) > 1}
    found = {}
    for node in plain.graph.node:
        if inputs.get(node.name) in (None, list(node.input)):
            continue
        own = next((name for name in node.input if name in weights), None)
        if own is None:
            found[node.name] = _Layer(f"{_scope(node)} ({node.op_type})", 2)
        else:
            depthwise = node.op_type == "Conv" and weights[own][1] == 1 < weights[own][0]
            found[node.name] = _Layer(own.removesuffix(".weight"), 0 if depthwise else 1)
    return found


def _scope(node: Any) -> str:
    """The module whose forward has this operation, as torch's exporter notes it."""
    noted = next((each.value for each in node.metadata_props if each.key == "pkg.torch.onnx.name_scopes"), "[]")
    scopes = ast.literal_eval(noted)
    return scopes[-2] if len(scopes) > 1 else node.name


def _nncf(plain: Any, images: Tensor) -> Any:
    """Everything in int8."""
    onnx, nncf = need("onnx", "ship"), _library()
    from nncf.quantization.advanced_parameters import OverflowFix, QuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    model = onnx.ModelProto()
    model.CopyFrom(plain)
    dataset = nncf.Dataset([one[None].numpy() for one in images], lambda x: {INPUT: x})
    how = nncf.AdvancedQuantizationParameters(
        # Processors without 8-bit dot products add two products in 16 bits, which overflow with all eight bits of
        # the weights. One bit less answers the same on every processor.
        overflow_fix=OverflowFix.ENABLE,
        # NNCF would give each channel of a depthwise layer's input its own range, which onnxruntime can't run.
        activations_quantization_params=QuantizationParameters(per_channel=False),
        # Its default, the mean of the images' ranges, cuts off what half of them have: the surest scores.
        activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM,
        disable_bias_correction=True,  # `round_` corrects them
    )
    with contextlib.redirect_stdout(sys.stderr):  # its bars
        return nncf.quantize(
            model,
            dataset,
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(images),
            advanced_parameters=how,
        )


@cache
def _library() -> Any:
    """NNCF, which else tells its makers that it is used."""
    before = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"
    try:
        nncf = need("nncf", "ship")
    finally:
        os.environ.pop("NNCF_CI") if before is None else os.environ.update(NNCF_CI=before)
    nncf.set_log_level(logging.ERROR)
    return nncf
