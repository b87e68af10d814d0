"""`tapehouse load`: says what the files are taken for, loads them, and says what became of every row.

The process that owns the store does it: this one when nobody owns it, else the owner, as a job that is followed. Other
servers are sent the files.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tapehouse.cli.context import Interval, Json, Where, connect, emit, say
from tapehouse.cli.loads import options as given
from tapehouse.cli.loads.progress import progress
from tapehouse.cli.loads.report import exit_code, say_plan, show

if TYPE_CHECKING:
    from tapehouse.bulk import LoadOptions, LoadReport
    from tapehouse.bulk.base import Description
    from tapehouse.client import Client

_PAUSES_S = (0.1, 0.5)
"""Between looks for an owner that was there a moment ago."""


def load(
    paths: given.Paths,
    map_: given.Map = None,
    kind: given.OneKind = None,
    symbol: given.Symbol = None,
    symbol_from: given.SymbolFrom = None,
    interval: Interval = None,
    tz: given.Zone = None,
    time_format: given.TimeFormat = None,
    delimiter: given.Delimiter = None,
    decimal: given.Decimal = None,
    encoding: given.Encoding = None,
    source: given.Source = None,
    on_conflict: given.Conflict = "replace",
    prefer: given.Prefer = None,
    batch: given.Batch = None,
    resume: given.Resume = None,
    validate: given.Checked = given.Validate.SAMPLE,
    instruments: given.Instruments = None,
    quarantine: given.Quarantine = None,
    max_bad_share: given.BadShare = 0.5,
    threads: given.Threads = None,
    if_empty: given.IfEmpty = False,
    strict: given.Strict = False,
    dry_run: given.DryRun = False,
    json: Json = False,
    store: Where = None,
) -> None:
    """Load files: CSV, TSV, JSON lines (plain or compressed), Parquet, Arrow, SQLite, DuckDB.

    What each file is taken for is said before its rows are written. Bad rows go to quarantine files with their
    reasons and stop nothing; the exit code is 0 when every file was read to its end, and 1 otherwise.
    """
    words: dict[str, Any] = {"symbol": symbol, "symbol_from": symbol_from, "timezone": tz, "time_format": time_format}
    words |= {"delimiter": delimiter, "decimal": decimal, "encoding": encoding, "source": source, "batch": batch}
    words |= {"resume": resume, "max_bad_share": max_bad_share, "threads": threads}
    options = _options(words, map_, kind, interval, on_conflict, prefer)
    if dry_run and resume is not None:
        raise typer.BadParameter(
            "only a load goes on; --dry-run says what one from the beginning does", param_hint="--resume"
        )
    if dry_run:
        raise typer.Exit(_survey(paths, options, instruments, json))
    said: set[str] = set()
    report = _through_owner(store, paths, options, validate.value, instruments, quarantine, said, if_empty)
    if isinstance(report, int):
        _nothing_to_do(report, json)
        return
    if json:
        emit(report)
    else:
        show(report, said)
    raise typer.Exit(exit_code(report, strict))


def _nothing_to_do(symbols: int, as_json: bool) -> None:
    if as_json:
        emit({"symbols": symbols, "loaded": False})
    else:
        say(f"the store holds {symbols:,} symbols already: nothing is loaded (--if-empty)")


def _survey(paths: list[str], options: LoadOptions, instruments: Path | None, as_json: bool) -> int:
    """Say what the files are taken for and what a load would do; the exit code."""
    from tapehouse import bulk
    from tapehouse.codec import read_instruments

    given = None if instruments is None else read_instruments(instruments)
    files = bulk.plan(paths, options)
    found = bulk.survey(files, options, given or ())
    if as_json:
        emit(found)
    else:
        say_plan(files, given)
        for line in bulk.describe_survey(found):
            typer.echo(line)
    return 1 if any(each.problem for each in found.files) else 0


def _options(
    words: dict[str, Any],
    map_: list[str] | None,
    kind: str | None,
    interval: str | None,
    on_conflict: str,
    prefer: str | None,
) -> LoadOptions:
    """The options as a load takes them, with the layouts of the settings file."""
    from tapehouse import bulk
    from tapehouse.client.reads import kind_of
    from tapehouse.client.writes import on_conflict_of
    from tapehouse.model import Interval as ModelInterval

    mapping = {}
    for pair in map_ or []:
        field, equals, column = pair.partition("=")
        if not (field and equals and column):
            raise typer.BadParameter(f"{pair!r} is not FIELD=COLUMN", param_hint="--map")
        mapping[field] = column
    return bulk.LoadOptions(
        **words,
        mapping=mapping,
        formats=bulk.own_descriptions(),
        kind=None if kind is None else kind_of(kind),
        interval=None if interval is None else ModelInterval.parse(interval),
        on_conflict=on_conflict_of(on_conflict),
        prefer=tuple(prefer.split(",")) if prefer else (),
    )


def _through_owner(store: str | None, paths: list[str], options: LoadOptions, *given: Any) -> LoadReport | int:
    """What became of the load; an owner that ends just then is looked for again, and then it may be us."""
    from tapehouse.errors import Unavailable

    for pause_s in _PAUSES_S:
        with _connected(store, paths, options) as client:
            try:
                return _load_or_not(client, paths, options, *given)
            except Unavailable as exc:
                if not client.is_owner_elsewhere or "job" in exc.details:
                    raise
        time.sleep(pause_s)
    with _connected(store, paths, options) as client:
        return _load_or_not(client, paths, options, *given)


def _connected(store: str | None, paths: list[str], options: LoadOptions) -> Client:
    """A client of the store; a folder is made only for files of which one can be loaded."""
    from tapehouse import bulk
    from tapehouse.errors import NotFound

    try:
        return connect(store)
    except NotFound as exc:
        if "folder" not in exc.details:
            raise
    files = bulk.plan(paths, options)
    if all(file.problem is not None for file in files):
        say_plan(files, None)
        bulk.check_any(files)
    return connect(store, create=True)


def _load_or_not(
    client: Client,
    paths: list[str],
    options: LoadOptions,
    validate: str,
    instruments: Path | None,
    quarantine: Path | None,
    said: set[str],
    if_empty: bool,
) -> LoadReport | int:
    """The report, or how many symbols there are already, when that is a reason to do nothing."""
    if if_empty and (held := client.symbols()):
        return len(held)
    return _load(client, paths, options, validate, instruments, quarantine, said)


def _load(
    client: Client,
    paths: list[str],
    options: LoadOptions,
    validate: str,
    instruments: Path | None,
    quarantine: Path | None,
    said: set[str],
) -> LoadReport:
    """What became of the load; the problems that the plan names are added to `said`."""
    from tapehouse import bulk
    from tapehouse.bulk import journal
    from tapehouse.codec import read_instruments

    if quarantine is not None and client.store is None:
        raise typer.BadParameter("the server keeps bad rows in its data folder", param_hint="--quarantine")
    put = [] if instruments is None else read_instruments(instruments)
    known = client.put_instruments(put) if put else client.instruments()
    files = bulk.plan(paths, options)
    said |= say_plan(files, known)
    words = {name: getattr(options, name) for name in options.__struct_fields__}
    if client.store is not None and options.resume is None:
        journal.announce(client.store, files)
    if client.store is not None and options.workers is bulk.Workers.AUTO:
        words["workers"] = bulk.Workers.THREADS  # nobody waits for this process: docs/design/loads.md
    with _served(client, options.formats), progress() as shown:
        return client.load(paths, validate=validate, progress=shown, files=files, quarantine_dir=quarantine, **words)


@contextmanager
def _served(client: Client, formats: Sequence[Description]) -> Iterator[None]:
    """A load can take an hour: meanwhile others go through the folder's socket, as they would with a server."""
    owner = getattr(client.store, "owner", None)
    if client.store is None or owner is None:
        yield
        return
    from tapehouse.server import start_in_thread

    serving = start_in_thread(client.store, Path(owner.socket), formats=formats)
    try:
        yield
    finally:
        if serving.busy:
            say("loads that others asked for go on here; Ctrl-C ends them")
        serving.close()
