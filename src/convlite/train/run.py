"""One run of training: its epochs and its steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..data import Data
from ..kernels import Work
from . import processes
from .average import Average
from .bar import Bar
from .batches import batches, steps_in
from .compute import Machine
from .history import Epoch, History
from .optimise import optimiser, set_rate
from .recipe import Recipe
from .seeds import derive, seed_everything
from .state import State, Sums
from .stop import Stop
from .task import Task


class Diverged(Exception):
    """The loss, or a weight, is no longer finite."""

    def __init__(self, what: str) -> None:
        self.what = what


@dataclass(frozen=True)
class Run:
    """What stays the same throughout a run.

    Arguments:
        net: the network itself; model: what is called in its stead, to compile it or to share its gradients.
    """

    net: nn.Module
    model: nn.Module
    machine: Machine
    data: Data
    recipe: Recipe
    task: Task
    seed: int

    @cached_property
    def learn(self) -> Work:
        """Of inputs, targets and how much they count: learns from them; their loss and logits."""
        return self.machine.recorded(self.net, self._learn)

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return steps_in(len(self.data.train), self.recipe)

    def begin(self) -> State:
        """The state before the first step."""
        average = Average(self.net, self.recipe.average) if self.recipe.average else None
        return State(self.net, optimiser(self.net, self.recipe), self.machine.scaler, average)

    def done(self, state: State) -> int:
        """Steps in all so far."""
        return (state.epoch - 1) * self.steps + state.steps

    def epoch(self, state: State, bar: Bar, stop: Stop, test: bool, between: Callable[[], object]) -> Epoch:
        """The rest of the epoch that is under way.

        Arguments:
            between: called after every step but the last.
        """
        self.model.train()
        source = batches(
            self.data.train, self.recipe, self.seed, state.epoch, self.machine.device, start_step=state.steps,
            process_index=processes.index(), num_processes=processes.count(), classes=len(self.data.classes),
            **({} if self.data.ignore is None else {"ignore": self.data.ignore}),
        )  # fmt: skip
        sums, mark = state.sums, time.perf_counter()
        for pixels, targets in source:
            with stop.step():
                stopped = self._step(state, pixels, targets, stop)
                mark, begun = time.perf_counter(), mark
                sums.seconds += mark - begun
            bar.step(state.epoch, sums)
            if stopped:
                raise KeyboardInterrupt
            if state.steps < self.steps:
                between()
        done = Epoch(
            number=state.epoch,
            loss=sums.loss / sums.judged,
            train_accuracy=sums.right / sums.judged,
            test_accuracy=self._measure(state) if test else None,
            seconds=sums.seconds,
            images_per_second=sums.images / sums.seconds,
            rate=self._rate(self.done(state) - 1),
        )
        with stop.step():
            state.history = History((*state.history.epochs, done))
            state.steps, state.sums = 0, Sums()
        return done

    def _rate(self, step: int) -> float:
        """The recipe's rate in the middle of a step: neither the first nor the last one is for nothing."""
        return self.recipe.rate_at((step + 0.5) / (self.recipe.epochs * self.steps))

    def _measure(self, state: State) -> float:
        with nullcontext() if state.average is None else state.average.within(self.net):
            return self.task.measure(self.net, self.data.test, self.data, progress=False).headline

    def _step(self, state: State, pixels: Tensor, targets: Tensor, stop: Stop) -> bool:
        """One step on this process's share of its images, which is cut into the recipe's parts.

        Returns:
            Whether a process was asked to stop.
        """
        step, world, device = self.done(state), processes.count(), self.machine.device
        seed_everything(derive(self.seed, "step", step, processes.index()))  # so that no random state is carried on
        judged, images = processes.add_up([self.task.judged(targets), len(targets)], device)
        parts = max(1, min(self.recipe.accumulate, int(images) // world - (world > 1)))  # as many in every process
        state.optimiser.zero_grad()
        loss_sum = right = 0.0
        for i, (some, their) in enumerate(zip(pixels.tensor_split(parts), targets.tensor_split(parts)), 1):
            with nullcontext() if i == parts else self.machine.apart(self.model):
                weight = self.task.judged(their)
                # Gradients are averaged over processes: the mean over all images whatever each one's share.
                share = torch.tensor(weight * world / judged).to(device)
                loss, logits = self.learn(self.data.normalise(some), their, share)
            loss_sum += loss.item() * weight
            right += float(self.task.right(logits, their))
        loss_sum, right, asked = processes.add_up([loss_sum, right, float(stop.asked)], device)
        if not math.isfinite(loss_sum):
            raise Diverged(f"The loss became {loss_sum / judged}")
        set_rate(state.optimiser, self._rate(step))
        if self.recipe.clip:
            state.scaler.unscale_(state.optimiser)
            nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip)
        state.scaler.step(state.optimiser)
        state.scaler.update()
        if state.average is not None:
            state.average.update(self.net)
        state.steps += 1
        sums = state.sums
        sums.loss, sums.right = sums.loss + loss_sum, sums.right + right
        sums.judged, sums.images = sums.judged + judged, sums.images + images
        return asked > 0

    def _learn(self, inputs: Tensor, targets: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, auxiliary heads in it, and the logits; the gradients of `share` times the loss are taken."""
        with self.machine.autocast():
            answer = self.model(inputs)  # (N, classes, ...), and with auxiliary heads a tuple of such
        logits, *aux = (each.float() for each in (answer if isinstance(answer, tuple) else (answer,)))
        loss = self.task.loss(inputs, logits, targets, self.recipe.label_smoothing)
        for each in aux:
            loss = loss + self.recipe.aux * self.task.loss(inputs, each, targets, self.recipe.label_smoothing)
        self.machine.scaler.scale(loss * share).backward()
        return loss.detach(), logits.detach()

    def check_finite(self, state: State) -> None:
        """Raise Diverged where a weight is no number, so that no such weights are ever kept."""
        if not all(bool(torch.isfinite(tensor).all()) for tensor in self.net.parameters()):
            raise Diverged("A weight became infinite or no number")

    def about(self, history: History) -> dict[str, Any]:
        """What is kept beside the weights, in plain JSON values."""
        return {
            "classes": list(self.data.classes),
            "preprocess": self.data.preprocess.to_dict(),
            **({} if self.data.ignore is None else {"ignore": self.data.ignore}),
            "metrics": asdict(history.last),
            "training": {
                "data": self.data.source,
                "held_out": [list(cut) for cut in self.data.held_out],
                "seed": self.seed,
                "recipe": self.recipe.to_dict(),
                **history.to_dict(),
            },
        }
