"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import Data
from ..errors import InputError, RunError, need
from ..files import check_writable
from ..models.saved import save
from .allocator import keep_freed_memory
from .bar import Bar
from .batches import batches, steps_in
from .history import Epoch, History
from .metrics import check_fit, evaluate
from .recipe import Recipe
from .seeds import derive, seed_everything

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # of inputs, logits and labels: a scalar


def train(
    model: nn.Module,
    data: Data,
    recipe: Recipe | None = None,
    *,
    out: str | Path | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
    test_each_epoch: bool = False,
    loss: Loss | None = None,
    after_epoch: Callable[[Epoch], None] | None = None,
) -> History:
    """Train a network in place; it ends in evaluation mode, with channels last in memory.

    Arguments:
        model: takes (N, C, H, W) as `data.normalise` gives it, answers with (N, classes).
        recipe: how; by default `Recipe()`.
        out: a folder; after each epoch the network is saved in it, with classes, preprocessing and results.
        seed: the same seed gives the same weights, on one machine's CPU to the last bit.
        device: `cpu`, `cuda`, `mps`; by default the fastest that accelerate finds.
        progress: show a bar and a line an epoch on stderr.
        test_each_epoch: measure on `data.test` after each epoch, for the record only.
        loss: of inputs, logits and labels; by default cross entropy with the recipe's label smoothing.
        after_epoch: called when an epoch is saved.

    Raises:
        InputError: a network that doesn't fit the data, no such device, or `out` can't be written to.
        RunError: the loss is no longer finite; the weights are those before that step.
        KeyboardInterrupt: passed on; `out` holds the last whole epoch.
    """
    recipe = recipe or Recipe()
    folder = None if out is None else Path(out)
    if folder is not None:
        check_writable(folder)
    check_fit(model, data.shape, len(data.classes))
    run = _Run(_accelerator(device), data, recipe, seed, loss or _cross_entropy(recipe))
    state = run.start(model)
    bar = Bar(recipe.epochs, run.steps, show=progress and run.accelerator.is_local_main_process)
    try:
        with bar:
            if keep_freed_memory():
                bar.say("memory: freed pages stay with the process (mallopt), which saves clearing them anew")
            while len(state.history.epochs) < recipe.epochs:
                done = run.epoch(state, bar, test_each_epoch)
                state.history = History((*state.history.epochs, done))
                bar.epoch(done)
                if folder is not None and run.accelerator.is_main_process:
                    save(model, folder, run.about(state.history))
                if after_epoch is not None:
                    after_epoch(done)
    except KeyboardInterrupt:
        bar.say(f"Stopped in epoch {len(state.history.epochs) + 1}: {_kept(folder, state.history)}.")
        raise
    except _Diverged as error:
        raise RunError(
            f"The loss became {error.loss} in step {error.step} of epoch {len(state.history.epochs) + 1}; "
            f"{_kept(folder, state.history)}: try a rate below {recipe.rate}."
        ) from None
    finally:
        run.accelerator.unwrap_model(state.model, keep_fp32_wrapper=False).eval()
    return state.history


@dataclass
class _State:
    """What a run has come to: all that a checkpoint needs for going on where it stopped."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    history: History


@dataclass(frozen=True)
class _Run:
    """What stays the same throughout a run."""

    accelerator: Any
    data: Data
    recipe: Recipe
    seed: int
    loss: Loss

    @property
    def steps(self) -> int:
        return steps_in(len(self.data.train), self.recipe)

    def start(self, model: nn.Module) -> _State:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimiser = torch.optim.SGD(
            _groups(model, self.recipe.weight_decay),
            lr=self.recipe.rate,
            momentum=self.recipe.momentum,
            nesterov=self.recipe.momentum > 0,
        )
        model, optimiser = self.accelerator.prepare(model, optimiser)
        return _State(model, optimiser, History())

    def epoch(self, state: _State, bar: Bar, test: bool) -> Epoch:
        """One pass: every random choice in it comes from the seed and the epoch's number alone."""
        number = len(state.history.epochs) + 1
        seed_everything(derive(self.seed, "epoch", number))
        state.model.train()
        begun = time.perf_counter()
        loss_sum, right, seen = 0.0, 0, 0
        for step, (pixels, labels) in enumerate(
            batches(self.data.train, self.recipe, self.seed, number, self.accelerator.device)
        ):
            rate = self.recipe.rate_at(((number - 1) * self.steps + step) / (self.recipe.epochs * self.steps))
            loss, hits = self._step(state, pixels, labels, rate, step)
            loss_sum, right, seen = loss_sum + loss * len(labels), right + hits, seen + len(labels)
            bar.step(number, loss_sum / seen, right / seen, seen / (time.perf_counter() - begun))
        seconds = time.perf_counter() - begun
        tested = evaluate(state.model, self.data.test, self.data, progress=False).top1 if test else None
        return Epoch(number, loss_sum / seen, right / seen, tested, seconds, seen / seconds)

    def _step(self, state: _State, pixels: Tensor, labels: Tensor, rate: float, step: int) -> tuple[float, int]:
        inputs = self.data.normalise(pixels)  # (N, C, H, W)
        answer = state.model(inputs)  # (N, classes), and with auxiliary heads a tuple of such
        logits, *aux = answer if isinstance(answer, tuple) else (answer,)
        loss = self.loss(inputs, logits, labels)
        for each in aux:
            loss = loss + self.recipe.aux * self.loss(inputs, each, labels)
        if not math.isfinite(value := loss.item()):
            raise _Diverged(value, step + 1)
        state.optimiser.zero_grad()
        self.accelerator.backward(loss)
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        state.optimiser.step()
        return value, int((logits.argmax(1) == labels).sum())

    def about(self, history: History) -> dict[str, Any]:
        """What is kept beside the weights, in plain JSON values."""
        return {
            "classes": list(self.data.classes),
            "preprocess": self.data.preprocess.to_dict(),
            "metrics": asdict(history.last),
            "training": {
                "data": self.data.source,
                "seed": self.seed,
                "recipe": self.recipe.to_dict(),
                **history.to_dict(),
            },
        }


class _Diverged(Exception):
    def __init__(self, loss: float, step: int) -> None:
        self.loss, self.step = loss, step


def _accelerator(device: str | None) -> Any:
    accelerate = need("accelerate", "train")
    wanted = None if device is None else device.partition(":")[0]
    try:
        found = accelerate.Accelerator(cpu=wanted == "cpu")
    except ValueError:  # accelerate keeps one device for the life of a process
        raise InputError(
            "This process has trained on another device before: start a new one for the CPU."
        ) from None
    if wanted not in (None, found.device.type):
        raise InputError(f"There is no device {device!r} to train on here, only {found.device.type!r}: give that.")
    return found


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weights with decay; biases and the scales and shifts of norms, all of one dimension, without."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups: Iterable[tuple[float, list[nn.Parameter]]] = (
        (decay, [p for p in trained if p.ndim > 1]),
        (0.0, [p for p in trained if p.ndim <= 1]),
    )
    return [{"params": params, "weight_decay": decay} for decay, params in groups if params]


def _cross_entropy(recipe: Recipe) -> Loss:
    def loss(inputs: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)

    return loss


def _kept(folder: Path | None, history: History) -> str:
    if folder is None or not history.epochs:
        return "nothing was saved"
    return f"{folder} holds the network after epoch {history.last.number}"
