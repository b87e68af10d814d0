"""`docs/benchmarks.md` and its chart, from the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks import ours
from benchmarks.measure import ROOT, Figure, Result
from benchmarks.suites import SUITES

PAGE = ROOT / "docs" / "benchmarks.md"
CHART = ROOT / "docs" / "images" / "benchmarks.svg"


def write(results: Path) -> None:
    """Write the page and the chart from the JSON files in that folder."""
    found = {path.stem: msgspec.json.decode(path.read_bytes(), type=Result) for path in results.glob("*.json")}
    ordered = [found[name] for name in SUITES if name in found]
    PAGE.write_text(page(ordered))
    CHART.parent.mkdir(parents=True, exist_ok=True)
    draw(ordered, CHART)
    print(f"wrote {PAGE.relative_to(ROOT)} and {CHART.relative_to(ROOT)}")


def page(results: Sequence[Result]) -> str:
    """The whole page."""
    missed = [figure for result in results for figure in result.figures if figure.met is False]
    verdict = "Every target is met." if not missed else f"Not met: {'; '.join(figure.name for figure in missed)}."
    machine = results[0].machine
    described = ", ".join(
        [f"{machine['cpu']}, {machine['cores']} cores, {machine['memory']}", *_versions(machine)],
    )
    sources = {result.source for result in results}
    sections = [_section(result, mixed=len(sources) > 1) for result in results]
    measured = f"Measured on {described}; {_of_what(sources)}."
    return "\n\n".join([_HEAD, verdict, "![The main figures](images/benchmarks.svg)", measured, *sections, _FOOT])


def _section(result: Result, *, mixed: bool) -> str:
    of = f"Of the source tree `{result.source}`." if mixed else ""
    return "\n\n".join(filter(None, [f"## {_title(result)}", result.about, of, table(result)]))


def _of_what(sources: set[str]) -> str:
    if len(sources) == 1:
        return f"all of one source tree, `{next(iter(sources))}`"
    return "**not all of one source tree**: each section says of which, and `make bench` measures all of one"


def _versions(machine: dict[str, str]) -> list[str]:
    return [f"{name} {machine[name]}" for name in machine if name not in {"cpu", "cores", "memory", "system"}]


def _title(result: Result) -> str:
    return {"http": "HTTP"}.get(result.benchmark, result.benchmark.capitalize())


def table(result: Result) -> str:
    """One suite's figures in Markdown."""
    peers = list(dict.fromkeys(peer for figure in result.figures for peer in figure.peers))
    head = ["", ours.NAME, *peers, "ratio", "target", "met"]
    lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    for figure in result.figures:
        theirs = [_number(figure.peers[peer], figure.unit) if peer in figure.peers else "" for peer in peers]
        lines.append(_line([figure.name, _number(figure.ours, figure.unit), *theirs, *_judged(figure)]))
    notes = [f"{figure.name}: {figure.note}." for figure in result.figures if figure.note]
    return "\n".join(lines) + ("\n\n" + "\n\n".join(notes) if notes else "")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float, unit: str) -> str:
    digits = 0 if abs(value) >= 1_000 else 1 if abs(value) >= 100 else 2
    return f"{value:,.{digits}f} {unit}"


def _judged(figure: Figure) -> list[str]:
    sign = "≥" if figure.better == "higher" else "≤"
    targets = [f"{sign} {_number(figure.target, figure.unit)}"] if figure.target is not None else []
    targets += [f"{sign} {figure.ratio_target:g} of it"] if figure.ratio_target is not None else []
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f} of {figure.ratio_to}"
    return [ratio, " and ".join(targets), {True: "yes", False: "**no**", None: ""}[figure.met]]


def draw(results: Sequence[Result], path: Path) -> None:
    """A panel for each kind of figure: loading, size, reads."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    by_name = {result.benchmark: result.figures for result in results}
    reads = [figure for figure in by_name.get("reads", []) if "p50" in figure.name and "footers" not in figure.name]
    panels = [
        ("Load, million rows/s (longer is better)", _bars(by_name.get("load", []), "rows/s", 1e-6), False),
        ("Size, bytes a row (shorter is better)", _bars(by_name.get("size", []), "bytes/row", 1.0), False),
        ("Reads, ms, logarithmic (shorter is better)", _bars(reads, "ms", 1.0), True),
    ]
    panels = [panel for panel in panels if panel[1]]
    mpl.rcParams["svg.hashsalt"] = "tapehouse"
    heights = [sum(len(values) + 1 for values in bars.values()) for _, bars, _ in panels]
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(9, 0.2 * sum(heights) + 0.6 * len(panels)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axis, (title, bars, logarithmic) in zip(axes[:, 0], panels, strict=True):
        _panel(axis, title, bars, logarithmic=logarithmic)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(figure)


Bars = dict[str, dict[str, float]]


def _bars(figures: Sequence[Figure], unit: str, factor: float) -> Bars:
    return {
        figure.name: {who: value * factor for who, value in {ours.NAME: figure.ours, **figure.peers}.items()}
        for figure in figures
        if figure.unit == unit and figure.peers
    }


def _panel(axis: object, title: str, bars: Bars, *, logarithmic: bool) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axis, Axes)
    whos = list(dict.fromkeys(who for values in bars.values() for who in values))
    colours = dict(zip(whos, ["#0b6e4f", "#e0a458", "#7a8ba3", "#b7a5c6", "#c8c8c8"], strict=False))
    place, ticks, drawn = 0.0, [], set()
    for values in bars.values():
        ticks.append(place + (len(values) - 1) / 2)
        for who, value in values.items():
            axis.barh(place, value, color=colours[who], label=None if who in drawn else who)
            axis.text(value, place, f" {value:.3g}", va="center", fontsize=7)
            drawn.add(who)
            place += 1
        place += 1
    axis.set_yticks(ticks, list(bars), fontsize=8)
    axis.set_title(title, fontsize=9, loc="left")
    if logarithmic:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(lambda _value, _place: "")
    axis.set_ylim(place - 0.5, -1)
    axis.margins(x=0.12)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="x", labelsize=7)
    axis.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1))


_HEAD = """\
# Benchmarks

<!-- Written by `make bench` from benchmarks/results; do not edit. -->

`make bench` measures all of this anew, on your machine, from seeded data that it makes itself
([benchmarks/data.py](../benchmarks/data.py)): 200 symbols, 250 days of 390 one-minute bars, 19.5 million rows. Peers
run in the same run on the same rows, in turn with Tapehouse, so that noise falls on all alike; figures are medians (or
the percentile that is named), and what is compared is first checked to give the same answer. One client asks, one
question at a time, unless it says otherwise. *Ratio* is Tapehouse over the peer that is named: less than 1 is better
for times and sizes, more than 1 for rates."""

_FOOT = """\
## What is not measured here

Live ingest and fan-out: those parts are not built yet. Machines with more cores, spinning disks, networks."""
