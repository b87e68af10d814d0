"""What a file is taken for, in lines for people."""

from __future__ import annotations

from collections.abc import Sequence

from tapehouse.bulk.base import Format, RecognisedFile, Times, TimeStyle
from tapehouse.model import Instrument, Instruments

_FORMATS = {
    Format.JSON: "JSON lines",
    Format.PARQUET: "Parquet",
    Format.ARROW: "Arrow file (Feather)",
    Format.ARROW_STREAM: "Arrow stream",
    Format.SQLITE: "table of a SQLite file",
    Format.DUCKDB: "table of a DuckDB file",
}


def describe(file: RecognisedFile, instruments: Sequence[Instrument] | None = None) -> list[str]:
    """What a file is taken for, in lines for people; the first names the file.

    `instruments` are those that it is to be loaded with; None: those of a store that was not asked.
    """
    size = f"{file.size / 1e6:,.1f} MB" if file.size >= 100_000 else f"{file.size:,} bytes"
    lines = [f"{file.name} ({size})"]
    if file.kind is not None:
        interval = f" of {file.interval} ({file.interval_from})" if file.interval else ""
        named = f"{file.recognised}: " if file.recognised else ""
        lines.append(f"  {named}{file.kind}{interval}, source {file.source}")
        taken = ", ".join(field if field == name else f"{field}={name!r}" for field, name in file.columns.items())
        lines.append(f"  columns {taken}{''.join(f', {field}=0' for field in file.zeros)}")
    if file.symbol is not None:
        lines.append(f"  symbol {file.symbol} ({file.symbol_from})")
    if file.times is not None:
        lines.append(f"  times {_times(file.times, _zone_of_dates(file, instruments))}; {file.times.seen}")
    if text := _layout(file):
        lines.append(f"  {text}")
    if file.ignored:
        lines.append(f"  not taken: {', '.join(map(repr, file.ignored))}")
    lines += [f"  {note}" for note in file.notes]
    if file.problem is not None:
        lines.append(f"  cannot be loaded: {file.problem.message}")
    return lines


def _zone_of_dates(file: RecognisedFile, instruments: Sequence[Instrument] | None) -> str:
    if instruments is None:
        return "the zone of each instrument, or UTC where none is known"
    if file.symbol is not None:
        return Instruments(instruments).of(file.symbol).timezone
    zones = {known.timezone for known in instruments}
    if all(known.pattern != "*" for known in instruments):
        zones.add("UTC")
    if len(zones) == 1:
        return zones.pop() + ("" if instruments else ", as no instrument is known")
    return f"the zone of each instrument: {', '.join(sorted(zones))}"


def _times(times: Times, zone: str) -> str:
    if times.dates:
        if times.midnight is not None:
            return f"are midnights in {times.midnight}, taken as dates and stamped with midnight in {zone}"
        return f"are dates, stamped with midnight in {zone}"
    if times.style is TimeStyle.EPOCH:
        return f"are epochs in {times.unit}" + (
            " (a row of another unit is told by its magnitude)" if times.guessed else ""
        )
    return "state their offset" if times.stated else f"state no offset and are taken as {times.zone}"


def _layout(file: RecognisedFile) -> str:
    parts = [_FORMATS[file.format]] if file.format in _FORMATS else []
    if file.dialect is not None:
        parts += [f"delimiter {file.dialect.delimiter!r}"] if file.format is Format.CSV else []
        parts += [f"decimal {file.dialect.decimal!r}"] if file.dialect.decimal != "." else []
        parts += [f"encoding {file.dialect.encoding}"] if file.dialect.encoding != "utf-8" else []
        parts += [] if file.dialect.header else ["no header"]
    if file.decimals:
        parts.append(f"prices are whole numbers of 1e-{file.decimals}")
    if file.compression:
        parts.append(file.compression)
    return ", ".join(parts)
