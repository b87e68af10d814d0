"""`tapehouse load`: says what the files are taken for, loads them, and says what became of every row."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tapehouse.cli.context import Interval, Json, Where, connect, emit, say, target

if TYPE_CHECKING:
    from tapehouse.bulk import LoadOptions, LoadReport, Progress, RecognisedFile
    from tapehouse.client import Client
    from tapehouse.model import Instrument

SECONDS_BETWEEN_LINES = 5.0
_REASONS_SHOWN = 5


def load(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files, folders, patterns ('*.csv.gz').")],
    map_: Annotated[
        list[str] | None, typer.Option("--map", metavar="FIELD=COLUMN", help="The column of a field; repeatable.")
    ] = None,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="bars, trades or quotes.")] = None,
    symbol: Annotated[str | None, typer.Option(help="The one symbol of all rows.")] = None,
    symbol_from: Annotated[
        str | None, typer.Option(metavar="WHERE", help="name, folder, or a pattern whose first group it is.")
    ] = None,
    interval: Interval = None,
    tz: Annotated[str | None, typer.Option(help="The zone of times that state none: America/New_York, +05:30.")] = None,
    time_format: Annotated[str | None, typer.Option(help="As of strftime, or s, ms, us, ns for epochs.")] = None,
    delimiter: Annotated[str | None, typer.Option(help="What stands between columns.")] = None,
    decimal: Annotated[str | None, typer.Option(help="The decimal mark.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Of text files.")] = None,
    source: Annotated[str | None, typer.Option(help="Where the rows are from; default: the file's name.")] = None,
    on_conflict: Annotated[str, typer.Option(metavar="HOW", help="replace, keep, prefer or error.")] = "replace",
    prefer: Annotated[str | None, typer.Option(metavar="SOURCE,SOURCE", help="For prefer: best first.")] = None,
    batch: Annotated[str | None, typer.Option(help="What the load is called; default: a new name.")] = None,
    instruments: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Put these instruments into the store first.")
    ] = None,
    quarantine: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="For bad rows; default: quarantine in the data folder.")
    ] = None,
    max_bad_share: Annotated[float, typer.Option(help="Give a file up when more of its rows are bad.")] = 0.5,
    threads: Annotated[int | None, typer.Option(help="For parsing; default: one per core.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 when any row is bad.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what the files are taken for, and what a load would do.")
    ] = False,
    json: Json = False,
    store: Where = None,
) -> None:
    """Load CSV (also .gz and .zip) and Parquet files.

    What each file is taken for is said before its rows are written. Bad rows go to quarantine files with their
    reasons and stop nothing; the exit code is 0 when every file was read to its end, and 1 otherwise.
    """
    from tapehouse import bulk

    given = _options(map_, kind, interval, on_conflict, prefer)
    options: LoadOptions = bulk.LoadOptions(
        **given,
        formats=bulk.own_descriptions(),
        symbol=symbol,
        symbol_from=symbol_from,
        timezone=tz,
        time_format=time_format,
        delimiter=delimiter,
        decimal=decimal,
        encoding=encoding,
        source=source,
        batch=batch,
        max_bad_share=max_bad_share,
        threads=threads,
    )
    files = bulk.plan(paths, options)
    if dry_run:
        _say_survey(files, options, instruments, as_json=json)
        raise typer.Exit(1 if any(file.problem for file in files) else 0)
    report = _load(paths, files, options, instruments, quarantine, store)
    if json:
        emit(report)
    else:
        _show(report)
    raise typer.Exit(exit_code(report, strict))


def _options(
    map_: list[str] | None, kind: str | None, interval: str | None, on_conflict: str, prefer: str | None
) -> dict[str, Any]:
    """The options that have a type of their own."""
    from tapehouse.client.reads import kind_of
    from tapehouse.client.writes import on_conflict_of
    from tapehouse.model import Interval as ModelInterval

    mapping = {}
    for pair in map_ or []:
        field, equals, column = pair.partition("=")
        if not (field and equals and column):
            raise typer.BadParameter(f"{pair!r} is not FIELD=COLUMN", param_hint="--map")
        mapping[field] = column
    return {
        "mapping": mapping,
        "kind": None if kind is None else kind_of(kind),
        "interval": None if interval is None else ModelInterval.parse(interval),
        "on_conflict": on_conflict_of(on_conflict),
        "prefer": tuple(prefer.split(",")) if prefer else (),
    }


def _load(
    paths: list[str],
    files: list[RecognisedFile],
    options: LoadOptions,
    instruments: Path | None,
    quarantine: Path | None,
    store: str | None,
) -> LoadReport:
    from tapehouse import bulk
    from tapehouse.codec import read_instruments

    given = [] if instruments is None else read_instruments(instruments)
    with connect(store, create=True) as client, _served(client):
        known = client.put_instruments(given) if given else client.instruments()
        _say_plan(files, known)
        with _progress() as progress:
            return bulk.load(
                paths,
                client,
                options,
                instruments=known,
                quarantine_dir=quarantine or _quarantine(store),
                progress=progress,
                files=files,
            )


@contextmanager
def _served(client: Client) -> Iterator[None]:
    """A load can take an hour: meanwhile others go through the folder's socket, as they would with a server."""
    owner = getattr(client.store, "owner", None)
    if client.store is None or owner is None:
        yield
        return
    from tapehouse.server import start_in_thread

    with closing(start_in_thread(client.store, Path(owner.socket))):
        yield


def _quarantine(store: str | None) -> Path:
    from tapehouse.client.embedded import folder_of

    where = target(store)
    local = "://" not in where or where.startswith("duckdb://")
    return (folder_of(where) if local else Path()) / "quarantine"


def _say_survey(files: list[RecognisedFile], options: LoadOptions, instruments: Path | None, *, as_json: bool) -> None:
    from tapehouse import bulk
    from tapehouse.codec import read_instruments

    given = None if instruments is None else read_instruments(instruments)
    found = bulk.survey(files, options, given or ())
    if as_json:
        emit(found)
        return
    _say_plan(files, given)
    for line in bulk.describe_survey(found):
        typer.echo(line)


def _say_plan(files: list[RecognisedFile], instruments: list[Instrument] | None) -> None:
    from tapehouse.bulk import describe

    for file in files:
        for line in describe(file, instruments):
            say(line)


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal, a line every few seconds elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = [TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[said]}")]
    with Bars(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, said="")

        def show(done: Progress) -> None:
            bar.update(task, total=done.bytes_total, completed=done.bytes_done, description=done.file, said=said(done))

        yield show


class _Lines:
    """Progress where no bar can be drawn: now and then a line."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, done: Progress) -> None:
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            say(f"{done.file}: {said(done)}")


def said(done: Progress) -> str:
    """How far a load is, in a few words."""
    share = done.bytes_done / done.bytes_total if done.bytes_total else 1.0
    left = "" if done.eta_s is None else f", {done.eta_s:,.0f} s left"
    bad = f", {done.quarantined:,} bad" if done.quarantined else ""
    return f"{share:.0%}, {done.rows:,} rows, {done.rows_per_s:,.0f} rows/s{bad}{left}"


def _show(report: LoadReport) -> None:
    for file in report.files:
        for note in file.notes:
            say(f"{file.file.name}: {note}")
        for rejection in file.rejections[:_REASONS_SHOWN]:
            lines = ", ".join(f"{row.line:,}" for row in rejection.examples[:3])
            say(f"{file.file.name}: {rejection.rows:,} rows to quarantine: {rejection.reason} (line {lines})")
        if (hidden := len(file.rejections) - _REASONS_SHOWN) > 0:
            say(f"{file.file.name}: and {hidden} other reasons")
        if file.problem is not None:
            say(f"{file.file.name}: not loaded to its end: {file.problem.message}")
    totals = report.totals
    counts = ("inserted", "replaced", "unchanged", "rejected", "quarantined", "unwritten")
    what = ", ".join(f"{getattr(totals, name):,} {name}" for name in counts if getattr(totals, name))
    pace = f"{totals.read / report.seconds:,.0f} rows/s" if report.seconds else ""
    typer.echo(f"{totals.read:,} rows read in {report.seconds:,.1f} s ({pace}): {what or 'nothing to do'}")
    typer.echo(f"batch {report.batch}, {totals.commits:,} commits")
    if report.quarantine:
        typer.echo(f"bad rows are in {report.quarantine}")
    if report.interrupted:
        say("interrupted: what was committed stays; load the same again to go on")


def exit_code(report: LoadReport, strict: bool) -> int:
    """0 when every file was read to its end; with `strict`, and no row was bad."""
    if report.interrupted:
        return 130
    if not report.complete:
        return 1
    return 1 if strict and report.totals.quarantined else 0
