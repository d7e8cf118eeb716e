"""`train`: a run from its beginning, or from where it stopped, to its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from ..data import Data
from ..errors import InputError, RunError
from ..models.backbone import Backbone
from . import checkpoint, norms, processes
from .allocator import keep_freed_memory
from .bar import Bar
from .compute import Compute, Machine
from .folder import Folder, Keep, found
from .history import Epoch, History
from .memory import is_out_of_memory, too_large
from .recipe import Recipe
from .run import Diverged, Run
from .state import State
from .stop import Stop
from .task import Task, task_of


def train(
    model: nn.Module,
    data: Data,
    recipe: Recipe | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    compute: Compute = Compute(),
    task: Task | None = None,
    keep: Keep = Keep(),
    progress: bool = True,
    test_each_epoch: bool = False,
    after_epoch: Callable[[Epoch], None] | None = None,
) -> History:
    """Train a network in place; it ends in evaluation mode, with channels last in memory.

    Started as several processes (`torchrun`, `accelerate launch`), all of them train one network: each takes its
    share of every batch, and batch norms see all of it, so that the weights are those of one process to rounding.

    Arguments:
        model: takes (N, C, H, W) as `data.normalise` gives it, answers with (N, classes).
        recipe: how; by default `Recipe()`. Its dropout and drop_path are set in the network.
        out: a folder for the network, its checkpoints and its figures; see folder.py.
        resume: go on from the last checkpoint in `out`, if there is one. On one process of a CPU the weights
            then end as those of a run that never stopped, to the last bit.
        seed: the same seed gives the same weights, on one machine's CPU to the last bit.
        task: what is learnt; by default a class for each image, or for each pixel where labels are masks.
        progress: show a bar and a line an epoch on stderr.
        test_each_epoch: measure on `data.test` after each epoch, for the record, and to keep the best.
        after_epoch: called when an epoch is saved.

    Raises:
        InputError: a network that doesn't fit the data, no such device, `out` can't be written to or holds an
            unfinished run, or the run to resume is another one.
        RunError: the loss is no longer finite, the weights being those before that step; or memory is too small.
        KeyboardInterrupt: Ctrl-C or SIGTERM; `out` holds a checkpoint after the last whole step.
    """
    recipe = recipe or Recipe()
    task = task or task_of(data, recipe.dice)
    folder = None if out is None else Path(out)
    task.check(model, data)
    machine = Machine(compute)
    first = processes.index() == 0
    if recipe.batch_size < processes.count() or len(data.train) < processes.count():
        raise InputError(f"{processes.count()} processes need at least as many images a step: start fewer.")
    if compute.graphs and recipe.accumulate > 1:
        raise InputError("A recorded step has its images at once: leave graphs out, or accumulate at 1.")
    _regularise(model, recipe)
    run = Run(model, machine.prepare(model), machine, data, recipe, task, seed)
    bar = Bar(recipe.epochs, run.steps, show=progress and first)
    identity = checkpoint.identity(model, data, recipe, seed, compute.precision)
    place = checkpoint.place(machine.device, processes.count())
    state = run.begin()
    goes_on = None if folder is None else found(folder, resume, bar.say)
    if goes_on is not None:
        checkpoint.check_same(goes_on, identity, model)
        state.load(goes_on.tensors, goes_on.numbers)
        bar.resumed(goes_on.path, state, run.steps, goes_on.where, place)
    kept = None if folder is None or not first else Folder(folder, keep, identity, place)
    if kept is not None:
        checkpoint.tidy(kept.path, anew=goes_on is None)
    try:
        with bar, Stop(together=processes.count() > 1) as stop, norms.shared(model), machine.recomputing(model):
            if keep_freed_memory():
                bar.say("memory: freed pages stay with the process (mallopt), which saves clearing them anew")
            try:
                with machine.convolutions(model, bar.say):
                    _epochs(run, state, bar, stop, kept, test_each_epoch, after_epoch)
            except KeyboardInterrupt:
                if kept is not None and not stop.stepping and run.done(state):
                    kept.checkpoint(state, run.done(state))
                bar.say(f"Stopped in epoch {state.epoch} after step {state.steps} of {run.steps}: {_kept(kept)}.")
                raise
    except Diverged as error:
        raise RunError(
            f"{error.what} in step {state.steps + 1} of epoch {state.epoch}; {_kept(kept)}: "
            f"try a rate below {recipe.rate}."
        ) from None
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(too_large(recipe)) from error
    finally:
        if kept is not None:
            kept.close()
        if state.average is not None:
            state.average.copy_to(model)
        model.eval()
    return state.history


def _epochs(
    run: Run,
    state: State,
    bar: Bar,
    stop: Stop,
    kept: Folder | None,
    test: bool,
    after_epoch: Callable[[Epoch], None] | None,
) -> None:
    def checkpointed() -> None:
        if kept is not None:
            run.check_finite(state)
            kept.checkpoint(state, run.done(state))

    def between() -> None:
        if kept is not None and kept.keep.steps and run.done(state) % kept.keep.steps == 0:
            checkpointed()

    if kept is not None and state.history.epochs and not state.steps:
        kept.publish(state, run.about(state.history))  # in case the process ended just before it could
    while state.epoch <= run.recipe.epochs:
        done = run.epoch(state, bar, stop, test, between)
        bar.epoch(done)
        checkpointed()
        if kept is not None:
            kept.publish(state, run.about(state.history))
        if after_epoch is not None:
            after_epoch(done)


def _regularise(model: nn.Module, recipe: Recipe) -> None:
    if recipe.dropout is None and recipe.drop_path is None:
        return
    if not isinstance(model, Backbone):
        raise InputError("A recipe can set dropout and drop_path only in the families: leave both at None.")
    if recipe.dropout is not None:
        model.set_dropout_(recipe.dropout)
    if recipe.drop_path is not None:
        model.set_drop_path_(recipe.drop_path)


def _kept(folder: Folder | None) -> str:
    files = [] if folder is None else checkpoint.files(folder.path)
    if not files:
        return "nothing was saved"
    return f"{files[0]} holds the run after {int(files[0].stem)} steps"
