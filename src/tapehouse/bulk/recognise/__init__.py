"""What a file is taken for: its layout, columns, times, symbol and interval, from its beginning and the user's word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from tapehouse.bulk.base import LoadOptions, RecognisedFile, Times
from tapehouse.bulk.formats.zones import Zone
from tapehouse.bulk.recognise.dialect import Layout, names_without_header
from tapehouse.bulk.recognise.names import Columns, match
from tapehouse.bulk.recognise.stamps import Reading, reading_of
from tapehouse.bulk.recognise.steps import Step, interval_of, named_interval
from tapehouse.bulk.recognise.symbols import stem_of, symbol_of
from tapehouse.errors import UnreadableFile, UnrecognisedFile
from tapehouse.model import Kind

__all__ = ["recognise_columns", "recognise_text", "recognise_times"]


def recognise_text(file: RecognisedFile, layout: Layout, options: LoadOptions) -> RecognisedFile:
    """The file with everything that its layout and rows tell; `UnrecognisedFile` says what they do not."""
    names, notes = _names(layout, options), [*file.notes, *layout.notes]
    columns = match(names, options.mapping, options.kind)
    file = recognise_columns(file, names, columns, options)
    if not layout.rows:
        raise UnreadableFile("the file has a header and no rows", more=True)
    cells = {field: [row[place] for row in layout.rows] for field, place in columns.places.items()}
    first = next(field for field in ("timestamp", "date", "time") if field in cells)
    filled = [number for number, text in enumerate(cells[first]) if text.strip()]
    cells = {field: [texts[number] for number in filled] for field, texts in cells.items()}
    if not filled:
        raise UnrecognisedFile(f"column {names[columns.places[first]]!r}, the time, has no values")
    clocks = cells["time"] if first == "date" and "time" in cells else None
    reading = reading_of(cells[first], clocks, options.time_format)
    file = msgspec.structs.replace(file, dialect=layout.dialect, notes=tuple(notes))
    return recognise_times(file, reading, _of_rows(cells.get("symbol"), reading.good), options)


def _names(layout: Layout, options: LoadOptions) -> list[str]:
    if layout.dialect.header:
        return layout.names
    if names := names_without_header(layout.rows, layout.dialect.width):
        return names
    if not options.mapping:
        first = ", ".join(layout.rows[0][:12]) if layout.rows else ""
        raise UnrecognisedFile(
            f"the file has no header, and its columns do not look like bars ({first}): name them by their numbers, "
            "for example --map timestamp=1 --map price=2 --map size=3",
            columns=layout.names,
        )
    return layout.names


def _of_rows(texts: Sequence[str] | None, rows: np.ndarray) -> list[str] | None:
    return None if texts is None else [texts[row] for row in rows]


def recognise_columns(
    file: RecognisedFile, names: Sequence[str], columns: Columns, options: LoadOptions
) -> RecognisedFile:
    """The file with its kind, columns and symbol; a symbol that the user named goes before a column's."""
    places = columns.places
    symbol = why = None
    if "symbol" not in places or options.symbol is not None or options.symbol_from is not None:
        symbol, why = symbol_of(file.path, file.member, options.symbol, options.symbol_from)
        places = {field: place for field, place in places.items() if field != "symbol"}
    return msgspec.structs.replace(
        file,
        kind=columns.kind,
        columns={field: names[place] for field, place in places.items()},
        places=places,
        zeros=columns.zeros,
        ignored=tuple(name for place, name in enumerate(names) if place not in places.values()),
        symbol=symbol,
        symbol_from=why,
    )


def recognise_times(
    file: RecognisedFile, reading: Reading, symbols: Sequence[str] | None, options: LoadOptions
) -> RecognisedFile:
    """The file with its interval, and with how its times are read: of daily and longer bars only the date counts."""
    times = msgspec.structs.replace(reading.times, seen=reading.why)
    changes: dict[str, Any] = {"times": _with_zone(times, options)}
    if file.kind is Kind.BARS:
        step = _step(file, reading, symbols, options)
        changes |= {"interval": step.interval, "interval_from": step.why}
        if step.interval.by_calendar and reading.whole_days:
            changes["times"] = _with_zone(msgspec.structs.replace(times, dates=True), options)
        elif reading.times.dates and not step.interval.by_calendar:
            raise UnrecognisedFile(f"bars of {step.interval} need a time of day, and the times are dates")
    return msgspec.structs.replace(file, **changes)


def _step(file: RecognisedFile, reading: Reading, symbols: Sequence[str] | None, options: LoadOptions) -> Step:
    if options.interval is not None:
        return Step(options.interval, "--interval")
    named = named_interval(stem_of(file.member or file.path))
    return interval_of(symbols if file.symbol is None else None, reading.values, named)


def _with_zone(times: Times, options: LoadOptions) -> Times:
    """The user's zone counts for dates and for times without an offset; without one the latter are UTC."""
    if options.timezone is not None:
        Zone(options.timezone)
        return msgspec.structs.replace(times, zone=options.timezone)
    return times if times.dates or times.are_instants else msgspec.structs.replace(times, zone="UTC")
