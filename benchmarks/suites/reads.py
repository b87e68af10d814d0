"""Point and range reads from the store, beside raw libraries that hold the same rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure, ours, peers
from benchmarks.bench import Bench
from benchmarks.measure import Figure

ABOUT = (
    "One symbol, one day (390 rows) and one year (97,500 rows), as Arrow where the library can. Every read asks for "
    "another symbol and day; Tapehouse's own caches are emptied before each one, its peers keep theirs. "
    "With the page cache dropped, each read is the first one of a fresh process."
)
DAY_READS = 200
DROPPED_READS = 7
Question = tuple[str, int, int]


def run(bench: Bench) -> list[Figure]:
    folder = ours.loaded(bench)
    readers = {name: opened(bench.files) for name, opened in peers.READERS.items()}
    mine = ours.Reader(folder)
    everyone: dict[str, Any] = {ours.NAME: mine, **readers}
    check_answers(everyone, bench.one_day(1, 5) + bench.all_time(2, 1))
    figures = [
        *_warm("one symbol, one day", everyone, bench.one_day(3, DAY_READS), median_target=None, p95_target=10.0),
        *_warm("one symbol, one year", everyone, bench.all_time(4, 6 * bench.repeats), median_target=15.0),
        _with_footers(mine, readers, bench.one_day(5, DAY_READS)),
    ]
    for reader in everyone.values():
        reader.close()
    figures += [_dropped(bench, "one day", folder), _dropped(bench, "one year", folder)]
    return figures


def check_answers(readers: dict[str, Any], questions: list[Question]) -> None:
    """Everybody must say the same before it counts how fast."""
    for question in questions:
        answers = {name: peers.closes(reader.read(*question)) for name, reader in readers.items()}
        expected = answers[ours.NAME]
        assert len(expected), f"no rows for {question}"
        for name, answer in answers.items():
            assert np.array_equal(answer, expected), f"wrong answers: {name} and {ours.NAME} differ for {question}"


def time_reads(readers: dict[str, Any], questions: list[Question], *, forget: bool) -> dict[str, list[float]]:
    """Seconds of each reader for each question, in turn; with `forget`, ours has emptied its caches before."""
    samples: dict[str, list[float]] = {name: [] for name in readers}
    names = list(readers)
    for turn, question in enumerate(questions):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            reader = readers[name]
            if forget and name == ours.NAME:
                reader.forget()
            samples[name].append(measure.seconds(_ask(reader, question)))
    return samples


def _ask(reader: Any, question: Question) -> Callable[[], object]:
    return lambda: reader.read(*question)


def _warm(
    name: str,
    readers: dict[str, Any],
    questions: list[Question],
    *,
    median_target: float | None,
    p95_target: float | None = None,
) -> list[Figure]:
    samples = time_reads(readers, questions, forget=True)
    return [
        _figure(f"{name}, p50", {who: measure.percentile(s, 0.5) for who, s in samples.items()}, median_target),
        _figure(f"{name}, p95", {who: measure.percentile(s, 0.95) for who, s in samples.items()}, p95_target),
    ]


def _with_footers(mine: ours.Reader, readers: dict[str, Any], questions: list[Question]) -> Figure:
    samples = time_reads({ours.NAME: mine, **readers}, questions, forget=False)
    taken = {who: measure.percentile(s, 0.5) for who, s in samples.items()}
    return _figure("one symbol, one day, p50, file footers in memory", taken, None)


def _figure(name: str, taken: dict[str, float], target: float | None) -> Figure:
    in_ms = {who: value * 1e3 for who, value in taken.items()}
    mine = in_ms.pop(ours.NAME)
    return Figure(
        name=name, unit="ms", ours=mine, better="lower", peers=in_ms, target=target, ratio_to=peers.RawDuckDB.name
    )


def _dropped(bench: Bench, what: str, folder: Path) -> Figure:
    """The first read of a fresh process after the page cache was dropped, each in turn."""
    names = [ours.NAME, *peers.READERS]
    questions = (bench.one_day if what == "one day" else bench.all_time)(6, DROPPED_READS)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for question in questions:
        rows: set[float] = set()
        for name in names:
            answer = measure.in_a_process(
                "benchmarks.suites.reads:first_read",
                name=name,
                bench={"symbols": bench.symbols, "days": bench.days, "data": bench.data},
                folder=str(folder),
                question=question,
            )
            samples[name].append(answer["seconds"])
            rows.add(answer["rows"])
        assert len(rows) == 1, f"wrong answers: {rows} rows for {question}"
    return _figure(
        f"one symbol, {what}, p50, page cache dropped",
        {n: measure.percentile(s, 0.5) for n, s in samples.items()},
        None,
    )


def first_read(name: str, bench: dict[str, Any], folder: str, question: Question) -> dict[str, float]:
    """Open, drop the page cache, read once; opening is not timed."""
    files = Bench(**bench).files
    reader = ours.Reader(Path(folder)) if name == ours.NAME else peers.READERS[name](files)
    if isinstance(reader, ours.Reader):
        reader.forget()
    measure.drop_page_cache(Path(folder) if name == ours.NAME else files.folder / "peers")
    answers: list[Any] = []
    taken = measure.seconds(lambda: answers.append(reader.read(*question)))
    rows = len(peers.closes(answers[0]))
    reader.close()
    return {"seconds": taken, "rows": rows}
