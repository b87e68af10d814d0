"""Commands that show what the store holds."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tapehouse.cli import tables
from tapehouse.cli.context import End, Interval, Json, Start, Where, connect, emit, say, timed
from tapehouse.errors import InvalidRequest

if TYPE_CHECKING:
    from tapehouse.client import FrameStream
    from tapehouse.query.base import Coverage


class Format(StrEnum):
    """How `bars` writes rows."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    ARROW = "arrow"


def bars(
    symbols: Annotated[list[str] | None, typer.Argument(metavar="[SYMBOL]...", help="Default: all.")] = None,
    interval: Interval = "1d",
    start: Start = None,
    end: End = None,
    columns: Annotated[str | None, typer.Option(help="Names with commas between them, or `all`.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", help="At most so many rows, over all symbols.")] = None,
    newest_first: Annotated[bool, typer.Option("--newest-first", "-r", help="Time descending in each symbol.")] = False,
    as_of: Annotated[str | None, typer.Option(metavar="COMMIT|TIME", help="What was known then.")] = None,
    source: Annotated[str | None, typer.Option(help="The rows of that source, current or not.")] = None,
    format_: Annotated[
        Format | None, typer.Option("--format", "-f", help="Default: a table on a terminal, else CSV.")
    ] = None,
    json: Json = False,
    store: Where = None,
) -> None:
    """Show bars. An interval that is not stored is made from finer ones; files are written by `export`."""
    chosen = Format.JSON if json else format_ or (Format.TABLE if sys.stdout.isatty() else Format.CSV)
    named = None if columns is None else columns if columns == "all" else columns.split(",")
    with (
        connect(store) as client,
        client.stream_bars(
            symbols or None,
            frame="arrow",
            interval=interval or "1d",
            start=start,
            end=end,
            columns=named,
            limit=limit,
            newest_first=newest_first,
            as_of=as_of,
            source=source,
        ) as stream,
    ):
        if chosen is Format.TABLE:
            tables.ends(stream)
        else:
            _encode(stream, chosen)


def _encode(stream: FrameStream, format_: Format) -> None:
    """The rows as they arrive, to standard output."""
    from tapehouse import codec

    if format_ is Format.ARROW and sys.stdout.isatty():
        raise InvalidRequest("arrow is not for a terminal; put it into a pipe, or use `tapehouse export`")
    batches = (batch for table in stream for batch in table.to_batches())
    if format_ is Format.CSV:
        pieces = codec.encode_csv(stream.schema, batches)
    elif format_ is Format.JSON:
        pieces = codec.encode_rows(batches, {"commit": stream.commit, "made_from": stream.made_from}, {})
    else:
        pieces = codec.encode_stream(stream.schema, batches)
    for piece in pieces:
        sys.stdout.buffer.write(piece)
    if format_ is Format.JSON:
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


def symbols(
    match: Annotated[str | None, typer.Argument(metavar="[PATTERN]", help="Such as 'BTC*'.")] = None,
    json: Json = False,
    store: Where = None,
) -> None:
    """List the symbols, one a line."""
    with connect(store) as client:
        names = client.symbols(match)
    if json:
        emit(names)
        return
    for name in names:
        typer.echo(name)
    if not names:
        say("no symbols" if match is None else f"no symbols match {match}")


def coverage(
    symbols: Annotated[list[str] | None, typer.Argument(metavar="[SYMBOL]...", help="Default: all.")] = None,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="bars, trades or quotes; default: all.")] = None,
    interval: Interval = None,
    spans: Annotated[int, typer.Option(help="How many missing spans to list of each series, newest first.")] = 3,
    json: Json = False,
    store: Where = None,
) -> None:
    """Show what is held of each symbol, and what is missing in between by its calendar."""
    with connect(store) as client:
        found = client.coverage(symbols or None, kind=kind, interval=interval, spans=spans)
    if json:
        emit([timed(each) for each in found])
        return
    columns = ("symbol", "kind", "interval", "first", "last", "rows", "missing", "of", "calendar")
    tables.show(columns, [_coverage_row(each) for each in found])
    for each in found:
        _say_missing(each)


def _coverage_row(each: Coverage) -> tuple[Any, ...]:
    from tapehouse.times import format_time

    first, last = format_time(each.first), format_time(each.last)
    interval = None if each.interval is None else str(each.interval)
    counts = (each.rows, each.missing_bars, each.expected)
    return each.symbol, str(each.kind), interval, first, last, *counts, each.calendar


def _say_missing(each: Coverage) -> None:
    from tapehouse.times import format_time

    if not each.missing:
        return
    series = f"{each.symbol} {each.interval or each.kind}"
    typer.echo(f"\n{series}: {each.missing_spans:,} missing spans, the newest {len(each.missing)}:")
    for span in each.missing:
        typer.echo(f"  {format_time(span.start)} to {format_time(span.end)}  {span.bars:,}")


def commits(
    after: Annotated[int, typer.Option(help="List the commits after that one.")] = 0,
    limit: Annotated[int, typer.Option("--limit", "-n", help="At most so many, oldest first.")] = 100,
    json: Json = False,
    store: Where = None,
) -> None:
    """List what was written, oldest first."""
    from tapehouse.times import format_time

    with connect(store) as client:
        found = client.commits(after=after, limit=limit)
    if json:
        emit([timed(each) for each in found])
        return
    counts = ("inserted", "replaced", "unchanged", "rejected", "deleted")
    rows = [
        (
            each.number,
            format_time(each.recorded),
            each.action,
            str(each.kind) if each.interval is None else f"{each.kind} {each.interval}",
            *(getattr(each, name) for name in counts),
            each.batch,
        )
        for each in found
    ]
    tables.show(("commit", "recorded", "action", "of", *counts, "batch"), rows)


def stats(json: Json = False, store: Where = None) -> None:
    """Show sizes and counts of the store."""
    import msgspec

    with connect(store) as client:
        found = client.stats()
    if json:
        emit(found)
    else:
        tables.pairs(msgspec.to_builtins(found))
