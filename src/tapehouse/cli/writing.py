"""Commands that change what the store holds."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tapehouse.cli import tables
from tapehouse.cli.context import End, Interval, Json, Kind, Start, Where, Yes, confirm, connect, emit, say, timed
from tapehouse.errors import NotFound

if TYPE_CHECKING:
    from tapehouse.model import Instrument


def delete(
    symbols: Annotated[list[str], typer.Argument(metavar="SYMBOL...")],
    kind: Kind = "bars",
    interval: Interval = None,
    start: Start = None,
    end: End = None,
    yes: Yes = False,
    json: Json = False,
    store: Where = None,
) -> None:
    """Delete the rows of a span. Reads as of an earlier commit still see them.

    Symbols that the store does not have are named, and then nothing is deleted. Exit code 1 when nothing was there.
    """
    span = f"{start or 'the beginning'} to {end or 'the end'}"
    what = " ".join(filter(None, [interval, kind]))
    confirm(f"Delete {what} of {', '.join(symbols)}, {span}?", yes)
    with connect(store) as client:
        _check_known(symbols, client.symbols())
        commit = client.delete(symbols, kind=kind, interval=interval, start=start, end=end)
    if json:
        emit(timed(commit))
    else:
        typer.echo(f"{commit.deleted:,} rows deleted, commit {commit.number}")
    if not commit.deleted:
        say(f"there were no {what} of {', '.join(symbols)} from {span}")
        raise typer.Exit(1)


def _check_known(symbols: list[str], known: list[str]) -> None:
    unknown = sorted(set(symbols) - set(known))
    if unknown:
        near = sorted({name for symbol in unknown[:5] for name in difflib.get_close_matches(symbol, known)})
        like = f"; there is {', '.join(near)}" if near else ""
        raise NotFound(f"nothing was deleted: no data for {', '.join(unknown[:5])}{like}", symbols=unknown[:5])


def compact(
    everything: Annotated[bool, typer.Option("--everything", help="Settled or not.")] = False,
    json: Json = False,
    store: Where = None,
) -> None:
    """Move settled rows into the Parquet archive. A server does so by itself."""
    with connect(store) as client:
        report = client.compact(everything=everything)
    if json:
        emit(report)
        return
    files = f"{report.files_written:,} files written, {report.files_replaced:,} replaced, {tables.size(report.bytes)}"
    typer.echo(f"{report.rows:,} rows in {report.spans:,} spans moved in {report.seconds:.1f} s: {files}")


instruments = typer.Typer(help="What is known of symbols: calendar, time zone, tick size, currency, class.")


@instruments.command("show")
def show_instruments(json: Json = False, store: Where = None) -> None:
    """List the instruments, by pattern."""
    with connect(store) as client:
        found = client.instruments()
    _print_instruments(found, json)


@instruments.command("set")
def set_instruments(
    file: Annotated[Path, typer.Argument(help="TOML with [[instruments]] tables, or JSON.")],
    json: Json = False,
    store: Where = None,
) -> None:
    """Add the instruments of a file, or replace those of the same pattern."""
    from tapehouse.codec import read_instruments

    given = read_instruments(file)
    with connect(store) as client:
        found = client.put_instruments(given)
    _print_instruments(found, json)


def _print_instruments(found: list[Instrument], as_json: bool) -> None:
    import msgspec

    if as_json:
        emit(found)
        return
    names = ("pattern", "calendar", "timezone", "tick_size", "currency", "asset_class")
    tables.show(names, [msgspec.structs.astuple(each) for each in found])
