"""The results of `cost_tools` as a page to read."""

from __future__ import annotations

from typing import Any


def page(found: dict[str, Any]) -> str:
    """Markdown, from what `cost_tools` wrote as JSON."""
    return "\n\n".join((head(found), exactness(found), speed(found), leftovers(found), toys(found))) + "\n"


def head(found: dict[str, Any]) -> str:
    """What was measured, and the goals."""
    here, speeds = found["machine"], found["seconds"].values()
    bare = max(one["convlite"]["median"] / one["bare"]["median"] for one in speeds)
    other = max(one["convlite"]["median"] / fastest(one)[1] for one in speeds)
    ours = found["counts"]["convlite"]
    wrong = [name for name, one in found["networks"].items() if not exact(ours[name], one)]
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return (
        "# What a network costs, by convlite and by other tools\n\n"
        f"`python benchmarks/cost_tools.py`; {here['processor']}, {here['threads']} threads, load {here['load']}; "
        f"{versions}.\n\n"
        f"- convlite counts {len(ours) - len(wrong)} of {len(ours)} networks exactly"
        f"{': not ' + ', '.join(wrong) if wrong else ''}.\n"
        f"- Counting takes at most {bare:.2f}× a bare forward on the meta device, and at most {other:.2f}× "
        "the time of the fastest other tool."
    )


def fastest(one: dict[str, Any]) -> tuple[str, float]:
    """Of the other tools."""
    others = {tool: taken["median"] for tool, taken in one.items() if tool not in ("bare", "convlite")}
    return min(others.items(), key=lambda item: item[1])


def exact(given: dict[str, Any], true: dict[str, Any]) -> bool:
    """Both figures, to the unit; parameters only where the tool gives any."""
    return given.get("macs") == true["macs"] and given["params"] in (None, true["params"])


def exactness(found: dict[str, Any]) -> str:
    """Error of the multiply-accumulates of the large networks; how many toys are right."""
    zoo, networks = found["zoo"], found["networks"]
    small = [name for name in networks if name not in zoo]
    rows = []
    for tool, counts in found["counts"].items():
        right = sum(exact(counts[name], networks[name]) for name in small)
        errors = [error(counts[name], networks[name]["macs"]) for name in zoo]
        rows.append([tool, *errors, f"{right} of {len(small)}"])
    return "## Error of the multiply-accumulates\n\n" + table(["", *zoo, "toys exact"], rows)


def error(given: dict[str, Any], true: int) -> str:
    """In per cent of the true count; parameters are not in it."""
    if "macs" not in given:
        return "fails"
    off = given["macs"] / true - 1
    return "0" if given["macs"] == true else f"{off:+.1e}" if abs(off) < 5e-5 else f"{off:+.2%}"


def speed(found: dict[str, Any]) -> str:
    """Milliseconds."""
    rows = []
    for tool in ("bare", *found["counts"]):
        cells = []
        for taken in found["seconds"].values():
            one = taken.get(tool)
            where = " (cpu)" if one and one["device"] == "cpu" else ""
            cells.append(f"{one['median']:.0f} ±{(one['q3'] - one['q1']) / 2:.0f}{where}" if one else "–")
        rows.append([tool, *cells])
    note = "Median ± half the middle 50%, on the meta device unless it says cpu.\n\n"
    return "## Milliseconds\n\n" + note + table(["", *found["zoo"]], rows)


def leftovers(found: dict[str, Any]) -> str:
    """What stays in the model, torch and the random state; and the count after a failure."""
    rows = []
    for tool, one in found["left"].items():
        if "failure" in one:
            rows.append([tool, "fails", "fails", "fails"])
        else:
            first, second = ("; ".join(one[when]) or "nothing" for when in ("after a count", "after a failure"))
            ratio = one["next count"]
            rows.append([tool, first, second, "fails" if ratio is None else f"{ratio:.4g}×"])
    heads = ["", "after a count", "after a forward that raises", "next count ÷ first"]
    return "## Left behind\n\n" + table(heads, rows)


def toys(found: dict[str, Any]) -> str:
    """What each tool says of each toy."""
    rows = []
    for name in [name for name in found["networks"] if name not in found["zoo"]]:
        true = found["networks"][name]
        rows.append([f"{name} ({true['macs']:,})", *(says(one[name], true) for one in found["counts"].values())])
    note = "Reported ÷ true multiply-accumulates; ✓ exact, parameters too; p: the parameters are wrong.\n\n"
    return "## Toys\n\n" + note + table(["", *found["counts"]], rows)


def says(given: dict[str, Any], true: dict[str, Any]) -> str:
    """One cell."""
    if "macs" not in given:
        return "fails"
    if exact(given, true):
        return "✓"
    wrong = "" if given["params"] in (None, true["params"]) else " p"
    if given["macs"] == true["macs"]:
        return f"✓{wrong}"
    return (f"{given['macs'] / true['macs']:.3g}" if true["macs"] else f"{given['macs']:.0f} of 0") + wrong


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
