"""Which rows differ when a write is refused under `on_conflict=error`: rows of the load itself, or stored ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tapehouse.bulk.account import FileLoad
from tapehouse.bulk.ordinals import VALUES
from tapehouse.bulk.run.batches import series_of, with_source
from tapehouse.errors import Conflict
from tapehouse.model import SCHEMAS, Kind
from tapehouse.store.base import Capability, Selection
from tapehouse.times import format_time

Row = dict[str, Any]


def explained(exc: Conflict, store: Any, rows: Sequence[tuple[FileLoad, pa.Table]], mine: Collection[int]) -> Conflict:
    """The conflict with the files, the time and the columns that differ; `mine` are the commits of this load."""
    examples = exc.details.get("examples")
    if not examples:
        return exc
    row, file = _row_of(rows, examples[0]["row"])
    stored = _stored(store, file, row)
    if stored is not None and stored["commit"] not in mine:
        said = f"{file.file.name} differs from what is stored: {_differences(file.kind, row, stored)}"
        return Conflict(f"{said}; stored from {stored['source']}", **exc.details)
    other, its_name = _other(rows, row, file) if stored is None else (stored, _named(rows, file, stored["source"]))
    if other is None:
        return exc
    name = file.file.name
    which = f"{name} has two rows that differ" if its_name == name else f"{name} and {its_name} have rows that differ"
    said = f"{which}: {_differences(file.kind, row, other)}; what was stored before this load is not involved"
    return Conflict(said, **exc.details, files=sorted({name, its_name}))


def _row_of(rows: Sequence[tuple[FileLoad, pa.Table]], place: int) -> tuple[Row, FileLoad]:
    for file, table in rows:
        if place < table.num_rows:
            return _rows(file, table.slice(place, 1))[0], file
        place -= table.num_rows
    raise IndexError(place)


def _rows(file: FileLoad, table: pa.Table) -> list[Row]:
    table = with_source(table, file.file.source)
    times = table.column("timestamp").cast(pa.int64())
    found: list[Row] = table.set_column(table.column_names.index("timestamp"), "timestamp", times).to_pylist()
    return found


def _stored(store: Any, file: FileLoad, row: Row) -> Row | None:
    """The current row of that key."""
    if Capability.VERSIONS not in getattr(store, "capabilities", ()):
        return None
    kind, interval = series_of(file)
    time = row["timestamp"]
    columns = (*SCHEMAS[kind].names, "commit")
    wanted = Selection(
        kind=kind, interval=interval, symbols=(row["symbol"],), start=time, end=time + 1, columns=columns
    )
    table = store.read(wanted).table()
    found = [each | {"timestamp": time} for each in table.drop_columns("timestamp").to_pylist()]
    return next((each for each in found if _key(kind, each) == _key(kind, row)), None)


def _other(rows: Sequence[tuple[FileLoad, pa.Table]], row: Row, its: FileLoad) -> tuple[Row | None, str]:
    """Another row of the same key with other values, and its file's name."""
    time = pa.scalar(row["timestamp"], pa.int64())
    for file, table in rows:
        same = pc.equal(table.column("timestamp").cast(pa.int64()), time)
        same = pc.and_(same, pc.equal(table.column("symbol").cast(pa.string()), row["symbol"]))
        for each in _rows(file, table.filter(same)):
            if _key(its.kind, each) == _key(its.kind, row) and _differing(its.kind, each, row):
                return each, file.file.name
    return None, ""


def _named(rows: Sequence[tuple[FileLoad, pa.Table]], its: FileLoad, source: str) -> str:
    """The file of this load that brought the stored row, as far as its source tells."""
    if source == its.file.source:
        return its.file.name
    return next((file.file.name for file, _ in rows if file.file.source == source), source.removeprefix("file:"))


def _key(kind: Kind, row: Row) -> tuple[Any, ...]:
    """What identifies a row of one symbol and time: docs/design/versions.md."""
    if kind is Kind.BARS:
        return ()
    if row.get("id") is not None:
        return row["source"], row["id"]
    return row["source"], row.get("ordinal") or 0, *(row.get(name) for name in VALUES[kind])


def _differing(kind: Kind, one: Row, other: Row) -> list[str]:
    names = [name for name in SCHEMAS[kind].names if name not in ("symbol", "timestamp", "ordinal")]
    return [name for name in names if one.get(name) != other.get(name)]


def _differences(kind: Kind, row: Row, other: Row) -> str:
    names = _differing(kind, row, other)
    names = [name for name in names if name != "source"] or names
    values = ", ".join(f"{name} {_said(row.get(name))} and {_said(other.get(name))}" for name in names)
    return f"{row['symbol']} at {format_time(row['timestamp'])}: {values}"


def _said(value: Any) -> str:
    return "none" if value is None else f"{value}"
