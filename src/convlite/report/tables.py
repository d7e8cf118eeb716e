"""What a network is and does, as tables for a terminal of 80 columns or more.

Every function takes values and gives something that rich can print; none reads, measures or computes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from .colours import palette
from .figures import count, exact, percent, short, times
from .parts import by_reason, plain_table, spread

if TYPE_CHECKING:
    from ..lighten import Left, Plan, Record
    from ..runtime.bench import Bench
    from ..runtime.exported import Exported
    from ..runtime.predict import Prediction
    from ..train import History, Score, SegmentScore


def models(found: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The families: name, input, parameters, multiply-accumulates, paper."""
    table = plain_table("network", ">input", ">params", ">MACs", "published")
    for one in found:
        size = "×".join(map(str, one["input"]))
        table.add_row(one["name"], size, short(one["params"]), short(one["macs"]), escape(one["paper"]))
    return table


def history(found: History) -> RenderableType:
    """How training went, epoch by epoch."""
    table = plain_table(">epoch", ">loss", ">accuracy", ">held out", ">seconds", ">images/s")
    for one in found.epochs:
        held_out = "" if one.test_accuracy is None else percent(one.test_accuracy, 2)
        table.add_row(
            str(one.number), f"{one.loss:.3f}", percent(one.train_accuracy, 2), held_out,
            f"{one.seconds:.1f}", f"{one.images_per_second:,.0f}",
        )  # fmt: skip
    return table


def score(found: Score, classes: Sequence[str], worst: int = 3) -> RenderableType:
    """How good a network is, and the classes it knows least."""
    table = plain_table("score", ">", "")
    table.add_row("accuracy", percent(found.top1, 2), f"{found.correct:,} of {count(found.count, 'image')}")
    table.add_row("among the five highest", percent(found.top5, 2), "")
    table.add_row("cross entropy", f"{found.loss:.4f}", "")
    table.add_row("calibration error", percent(found.calibration_error, 2), "")
    known = [(share, name) for share, name in zip(found.per_class, classes) if share is not None]
    for share, name in sorted(known)[:worst]:
        table.add_row(f"class {escape(name)}", percent(share, 2), "")
    return table


def pixel_score(found: SegmentScore, classes: Sequence[str]) -> RenderableType:
    """How well a network labels pixels, class by class."""
    table = plain_table("score", ">", "")
    table.add_row("mIoU", percent(found.miou, 2), f"mean over {count(len(classes), 'class', 'classes')}")
    table.add_row("pixels answered right", percent(found.accuracy, 2), f"of {short(found.pixels)}")
    for name, share in zip(classes, found.per_class):
        table.add_row(f"class {escape(name)}", "" if share is None else percent(share, 2), "")
    return table


def plan(found: Plan) -> RenderableType:
    """What takes the place of what, and what was left alone for which reason."""
    table = plain_table("layer", "becomes", ">MACs", ">kept", ">params", ">kept", ">error")
    for step in found.steps:
        table.add_row(
            escape(step.path),
            escape(str(step.kind)),
            short(step.after.macs),
            percent(step.after.macs / step.before.macs, 0),
            short(step.after.params),
            percent(step.after.params / step.before.params, 0),
            f"{step.layer_error:.1g}",
        )
    proof = (
        f"Predicted error of the outputs: {found.error:.2g}; no plan in the budget goes below {found.bound:.2g}."
    )
    return Group(table, Text(proof), *_left(found.left))


def frontier(found: Iterable[Mapping[str, Any]], score: str) -> RenderableType:
    """Light networks by what they cost: shares kept, the outputs' error, and the score."""
    table = plain_table(">MACs", ">kept", ">params", ">kept", ">output error", f">{score}")
    for one in found:
        table.add_row(
            short(one["macs"]), percent(one["macs_kept"]), short(one["params"]), percent(one["params_kept"]),
            f"{one['error']:.2g}", percent(one["score"], 2),
        )  # fmt: skip
    return table


def record(found: Record) -> RenderableType:
    """What each stage of lightening gave; `watched` is an accuracy."""
    table = plain_table("stage", ">seconds", ">output error", ">accuracy")
    for stage in found.stages:
        watched = "" if stage.watched is None else percent(stage.watched, 2)
        table.add_row(stage.name, f"{stage.seconds:.1f}", f"{stage.error:.2g}", watched)
    return table


def side_by_side(sides: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    """Networks in columns, the first the original.

    Arguments:
        sides: name → {"params", "macs", "accuracy", "correct", "count"}, of networks that label pixels "miou" in
            the place of the last two, and where measured "milliseconds": {of what: a timing}.
    """
    first = next(iter(sides.values()))
    table = plain_table("", *(f">{name}" for name in sides))
    for key, label in (("params", "parameters"), ("macs", "MACs")):
        cells = []
        for one in sides.values():
            share = "" if one is first else f" ({percent(one[key] / first[key])})" if first[key] else ""
            cells.append(exact(one[key]) + share)
        table.add_row(label, *cells)
    if "miou" in first:
        table.add_row("mIoU", *(percent(one["miou"], 2) for one in sides.values()))
    table.add_row("accuracy", *(percent(one["accuracy"], 2) for one in sides.values()))
    if "correct" in first:
        table.add_row("answered right", *(f"{one['correct']:,} of {one['count']:,}" for one in sides.values()))
    for what, base in first.get("milliseconds", {}).items():
        cells = []
        for one in sides.values():
            ms = one["milliseconds"][what]
            faster = "" if one is first else f" ({times(base['median'] / ms['median'])} as fast)"
            cells.append(spread(ms["median"], ms["q1"], ms["q3"]) + faster)
        table.add_row(f"ms for {what}", *cells)
    return table


def predictions(found: Iterable[Prediction]) -> RenderableType:
    """For each picture the likeliest classes, or those of most of its pixels, or why it could not be read."""
    found = list(found)
    of_pixels = any(one.of_pixels for one in found)
    table = plain_table("picture", "class", ">share of pixels" if of_pixels else ">probability")
    for one in found:
        for i, (name, probability) in enumerate(one.classes):
            table.add_row(escape(one.file) if i == 0 else "", escape(name), percent(probability))
        if one.why_not is not None:
            table.add_row(escape(one.file), f"[dim]not read: {escape(one.why_not)}[/dim]", "")
    return table


def legend(classes: Sequence[str], shares: Sequence[float]) -> RenderableType:
    """The colour of each class in overlays, and its share of all pixels that were labelled."""
    table = plain_table("", "class", ">of all pixels")
    for colour, name, share in zip(palette(len(classes)), classes, shares, strict=True):
        table.add_row(Text("██", style="rgb({},{},{})".format(*colour)), escape(name), percent(share))
    return table


def _left(left: Sequence[Left]) -> Iterable[Text]:
    for reason, paths in by_reason((one.path, one.reason) for one in left):
        yield Text(f"Left alone, {reason}: {', '.join(paths)}.", style="dim")


def kept(found: Mapping[str, str]) -> Iterable[RenderableType]:
    """Where the asked kind of convolution does not stand, by reason."""
    for reason, paths in by_reason(found.items()):
        yield Text(f"Kept as published, {reason}: {', '.join(paths)}.", style="dim")


def exported(found: Exported) -> RenderableType:
    """The file, and what it takes."""
    shape = " × ".join("any" if size is None else str(size) for size in found.shape)
    lines = [
        f"Written to {found.path}, and how to use it to {found.about}.",
        f"Input: {shape} (N × C × H × W), {found.precision}.",
    ]
    if (cost := found.quantised) is not None:
        lines.append(f"Answers as in fp32: {percent(cost.agreement, 2)} of {count(cost.images, 'held-out image')}.")
        if cost.accuracy is not None:
            before, after = cost.accuracy
            lines.append(f"Accuracy: {percent(after, 2)}, in fp32 {percent(before, 2)}.")
        if cost.kept:
            lines.append(f"Left in fp32: {', '.join(cost.kept)}.")
    return "\n".join(lines)


def bench(found: Bench) -> RenderableType:
    """Every way to run the network, the fastest first, and what could not run."""
    several = len({run.threads for run in found.runs}) > 1
    labelled = any(run.accuracy is not None for run in found.runs)
    table = plain_table(
        ">N", "engine", "type", *([">threads"] if several else []), ">ms", ">peak", ">MiB", ">error", ">agree",
        *([">accuracy"] if labelled else []), "",
    )  # fmt: skip
    for batch in sorted({run.batch for run in found.runs}):
        best = found.fastest(batch)
        for run in sorted((run for run in found.runs if run.batch == batch), key=lambda run: run.timing.median):
            t = run.timing
            mark = "" if run not in best else "best" if len(best) == 1 else "equal"
            peak = "" if run.of_peak is None else percent(run.of_peak, 0)
            accuracy = "" if run.accuracy is None else percent(run.accuracy)
            table.add_row(
                str(batch), run.engine, run.precision, *([str(run.threads)] if several else []),
                spread(t.median, t.q1, t.q3), peak, "" if run.memory is None else f"{run.memory / 2**20:,.0f}",
                f"{run.error:.0e}", percent(run.agreement), *([accuracy] if labelled else []), mark,
            )  # fmt: skip
    here = found.machine
    notes = [f"{name}: {why}" for name, why in found.skipped.items()]
    bound = f"scores within {found.tolerance:.1g} of the largest"
    if found.max_drop is not None:
        bound += f", or at most {percent(found.max_drop)} lost"
    notes.append(f"The fastest has {bound}; ways whose middle halves overlap are as fast as each other.")
    size = "×".join(map(str, found.shape))
    notes.append(
        f"{size}, {here.processor}, {here.threads} threads, load {here.load}; peak: of the rate that it reached."
    )
    return Group(table, *map(Text, notes))
