"""What a file is taken for: its layout, columns, times, symbol and interval, from its beginning and the user's word.

First by the table of layouts that are known by name (`known`), else by the spelling of columns and the look of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tapehouse.bulk.base import Dialect, LoadOptions, RecognisedFile, Times
from tapehouse.bulk.formats.zones import Zone
from tapehouse.bulk.recognise.dialect import TRAILING, Layout, names_without_header
from tapehouse.bulk.recognise.known import Known, is_row_number, known_of
from tapehouse.bulk.recognise.names import DAY_FIRST, UNNAMED, Columns, match, plain
from tapehouse.bulk.recognise.stamps import Reading, reading_of
from tapehouse.bulk.recognise.steps import Step, interval_of, named_interval, newest_first
from tapehouse.bulk.recognise.symbols import stem_of, symbol_of, symbol_said
from tapehouse.errors import UnreadableFile, UnrecognisedFile
from tapehouse.model import DAY_NS, Interval, Kind

__all__ = ["Seen", "recognise_columns", "recognise_text", "recognise_times", "with_layout"]

UNNAMED_INDEX = "pandas, with an index that has no name"


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What the layout of a text file told, which files of the same layout need not be asked again.

    `options` are the user's with what the description says; `times` how the sample's were read.
    """

    names: list[str]
    columns: Columns
    known: Known | None
    options: LoadOptions
    dialect: Dialect
    times: Times
    why: str
    decimals: int


def recognise_text(file: RecognisedFile, layout: Layout, options: LoadOptions) -> tuple[RecognisedFile, Seen]:
    """The file with everything that its layout and rows tell; `UnrecognisedFile` says what they do not."""
    known = known_of(layout.names, layout.dialect.header, layout.rows, file, options)
    names = layout.names if known else _names(layout, options)
    if known is not None:
        options = known.options(options, names, layout.rows)
    columns = match(names, options.mapping, options.kind)
    if not layout.rows:
        recognise_columns(file, names, columns, known, options)
        raise UnreadableFile(layout.misfit or "the file has a header and no rows", more=True)
    cells, first = _cells(layout.rows, names, columns)
    day_first = plain(names[columns.places[first]]) in DAY_FIRST
    reading = reading_of(cells[first], _clocks(cells, first), options.time_format, day_first=day_first)
    if known is not None and known.description.time_format:
        reading = reading._replace(why=f"as {known.description.name} writes them")
    seen = Seen(
        names=names,
        columns=columns,
        known=known,
        options=options,
        dialect=layout.dialect,
        times=reading.times,
        why=reading.why,
        decimals=known.decimals(cells) if known else 0,
    )
    file = msgspec.structs.replace(file, notes=(*file.notes, *layout.notes), symbol=layout.symbol)
    return with_layout(file, seen, reading, cells.get("symbol")), seen


def with_layout(file: RecognisedFile, seen: Seen, reading: Reading, symbols: Sequence[str] | None) -> RecognisedFile:
    """The file with that layout, and with what its own name and rows tell; `symbols` are those of the sample's rows."""
    file = recognise_columns(file, seen.names, seen.columns, seen.known, seen.options)
    exact = seen.known is not None and seen.known.description.exact
    dialect = msgspec.structs.replace(seen.dialect, exact=exact)
    notes = (*file.notes, TRAILING) if dialect.trailing else file.notes
    changes: dict[str, Any] = {"dialect": dialect, "decimals": seen.decimals, "notes": notes}
    if seen.known is not None and seen.known.description.note:
        changes["notes"] = (*notes, seen.known.description.note)
    of_rows = None if symbols is None else [symbols[row] for row in reading.good]
    return recognise_times(msgspec.structs.replace(file, **changes), reading, of_rows, seen.known, seen.options)


def _cells(rows: list[list[str]], names: Sequence[str], columns: Columns) -> tuple[dict[str, list[str]], str]:
    """The texts of the rows that have a time, by field; and which field that is."""
    cells = {field: [row[place] for row in rows] for field, place in columns.places.items()}
    first = next(field for field in ("timestamp", "date", "time") if field in cells)
    filled = [number for number, text in enumerate(cells[first]) if text.strip()]
    if not filled:
        raise UnrecognisedFile(f"column {names[columns.places[first]]!r}, the time, has no values")
    if len(filled) < len(rows):
        cells = {field: [texts[number] for number in filled] for field, texts in cells.items()}
    return cells, first


def _clocks(cells: Mapping[str, list[str]], first: str) -> list[str] | None:
    return cells["time"] if first == "date" and "time" in cells else None


def _names(layout: Layout, options: LoadOptions) -> list[str]:
    if layout.dialect.header:
        return layout.names
    if names := names_without_header(layout.rows, layout.dialect.width):
        return names
    if not options.mapping:
        first = ", ".join(layout.rows[0][:12]) if layout.rows else ""
        raise UnrecognisedFile(
            f"the file has no header, and its columns do not look like bars ({first[:200]}): name them by their "
            "numbers, for example --map timestamp=1 --map price=2 --map size=3",
            columns=layout.names,
        )
    return layout.names


def recognise_columns(
    file: RecognisedFile, names: Sequence[str], columns: Columns, known: Known | None, options: LoadOptions
) -> RecognisedFile:
    """The file with its kind, columns and symbol; a symbol that the user named goes before a column's."""
    places = columns.places
    symbol = why = None
    if "symbol" not in places or options.symbol is not None or options.symbol_from is not None:
        symbol, why = _symbol(file, known, options)
        places = {field: place for field, place in places.items() if field != "symbol"}
    if options.source is not None:
        places = {field: place for field, place in places.items() if field != "source"}
    carried = tuple(field for field in known.description.carried if field in places) if known else ()
    if carried and symbol is None:
        raise UnrecognisedFile(f"rows leave out {' and '.join(carried)}, which needs a file of one symbol: --symbol")
    unnamed = "timestamp" in places and plain(names[places["timestamp"]]) in UNNAMED
    return msgspec.structs.replace(
        file,
        recognised=known.description.name if known else UNNAMED_INDEX if unnamed else None,
        kind=columns.kind,
        columns={field: names[place] for field, place in places.items()},
        places=places,
        zeros=columns.zeros,
        carried=carried,
        values=known.description.values if known else {},
        ignored=tuple(name for place, name in enumerate(names) if place not in places.values()),
        symbol=symbol,
        symbol_from=why,
    )


def _symbol(file: RecognisedFile, known: Known | None, options: LoadOptions) -> tuple[str, str]:
    if known is not None and known.symbol is not None and options.symbol is None and options.symbol_from is None:
        return symbol_said(known.symbol, f"the file's name, as {known.description.name} has it")
    if file.symbol is not None and options.symbol is None and options.symbol_from is None:
        return symbol_said(file.symbol, "the second line of the header")
    return symbol_of(file.path, file.member, options.symbol, options.symbol_from)


def recognise_times(
    file: RecognisedFile,
    reading: Reading,
    symbols: Sequence[str] | None,
    known: Known | None,
    options: LoadOptions,
) -> RecognisedFile:
    """The file with its interval, and with how its times are read: of daily and longer bars only the date counts."""
    if file.recognised == UNNAMED_INDEX and is_row_number(reading.values):
        raise UnrecognisedFile("no column is the time: the first, which has no name, only counts the rows")
    reverse = newest_first(symbols if file.symbol is None else None, reading.values)
    times = msgspec.structs.replace(reading.times, seen=reading.why, newest_first=reverse)
    changes: dict[str, Any] = {"times": _with_zone(times, options)}
    if file.kind is Kind.BARS:
        step = _step(file, reading, symbols, known, options)
        changes |= {"interval": step.interval, "interval_from": step.why}
        if known is not None and known.description.exact:
            pass
        elif step.interval.by_calendar and (dates := _as_dates(times, reading, known, options)):
            changes["times"] = _with_zone(dates, options)
        elif reading.times.dates and not step.interval.by_calendar:
            raise UnrecognisedFile(f"bars of {step.interval} need a time of day, and the times are dates")
    return msgspec.structs.replace(file, **changes)


def _step(
    file: RecognisedFile,
    reading: Reading,
    symbols: Sequence[str] | None,
    known: Known | None,
    options: LoadOptions,
) -> Step:
    if options.interval is not None:
        return Step(options.interval, "--interval")
    if known is not None and known.description.exact and known.interval is not None:
        return Step(known.interval, "the file's name")
    named = (known.interval if known else None) or named_interval(stem_of(file.member or file.path))
    of_rows = symbols if file.symbol is None else None
    # A file for each day has no steps, but the vendor's days begin at midnight, at which no minute is traded.
    each_once = of_rows is not None and 1 < len(of_rows) == len(set(of_rows))
    if named is None and each_once and _as_dates(reading.times, reading, known, options) is not None:
        return Step(Interval.D1, "one row a symbol, all of midnight")
    return interval_of(of_rows, reading.values, named)


def _as_dates(times: Times, reading: Reading, known: Known | None, options: LoadOptions) -> Times | None:
    """The times as dates, when all are midnights: as they are written, in the user's zone, or where the vendor is."""
    if reading.whole_days:
        return msgspec.structs.replace(times, dates=True)
    zone = options.timezone or (known.description.midnight if known else None)
    if zone is None or not times.are_instants or (Zone(zone).to_local(reading.values) % DAY_NS).any():
        return None
    return msgspec.structs.replace(times, dates=True, midnight=zone)


def _with_zone(times: Times, options: LoadOptions) -> Times:
    """The user's zone counts for times without an offset; without one they are UTC."""
    if options.timezone is not None:
        Zone(options.timezone)
        return msgspec.structs.replace(times, zone=options.timezone)
    return times if times.dates or times.are_instants else msgspec.structs.replace(times, zone="UTC")
