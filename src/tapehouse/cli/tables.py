"""Tables for people: drawn on a terminal, aligned text in a pipe."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from tapehouse.client import FrameStream

SHOWN_AT_EACH_END = 20
GAP = "..."
"""What stands in every cell of a row that stands for many."""
_NUMERIC = int | float | None


def show(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """The rows under their headings; numbers stand to the right."""
    texts = [[cell(value) for value in row] for row in rows]
    numeric = [
        all(isinstance(row[place], _NUMERIC) or row[place] == GAP for row in rows) for place in range(len(columns))
    ]
    if sys.stdout.isatty():
        _draw(columns, texts, numeric)
    else:
        _align(columns, texts, numeric)


def ends(stream: FrameStream) -> None:
    """The first and the last rows of a stream; what lies between is counted."""
    head: list[list[Any]] = []
    tail: deque[list[Any]] = deque(maxlen=SHOWN_AT_EACH_END)
    rows = 0
    for table in stream:
        rows += table.num_rows
        fresh = table.slice(0, SHOWN_AT_EACH_END - len(head))
        rest = table.slice(fresh.num_rows)
        head += _records(fresh)
        tail.extend(_records(rest.slice(max(0, rest.num_rows - SHOWN_AT_EACH_END))))
    gap = [[GAP] * len(stream.schema.names)] if rows > len(head) + len(tail) else []
    show(stream.schema.names, [*head, *gap, *tail])
    made = "".join(f", {symbol} made from {' and '.join(origins)}" for symbol, origins in stream.made_from.items())
    typer.echo(f"{rows:,} rows as of commit {stream.commit}{made}", err=True)


def _records(table: Any) -> list[list[Any]]:
    """The rows, times as text."""
    import pyarrow as pa

    from tapehouse.times import format_time

    columns = [
        [format_time(value) for value in column.cast(pa.int64()).to_pylist()]
        if name == "timestamp"
        else column.to_pylist()
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def pairs(values: dict[str, Any]) -> None:
    """A line for each value, nested ones with the names of what they are in; then its lists of objects, as tables."""
    lists = {name: value for name, value in values.items() if isinstance(value, list)}
    flat = dict(_flat({name: value for name, value in values.items() if name not in lists}))
    width = max((len(name) for name in flat), default=0)
    for name, value in flat.items():
        typer.echo(f"{name:<{width}}  {_sized(name, value)}")
    for rows in filter(None, lists.values()):
        typer.echo()
        show(list(rows[0]), [list(row.values()) for row in rows])


def cell(value: Any) -> str:
    """A value as people write it: whole floats without a fraction, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def size(count: float) -> str:
    """Bytes in the largest unit that leaves at least one."""
    for unit in ("B", "KB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"


def _sized(name: str, value: Any) -> str:
    return size(value) if name.endswith("bytes") and isinstance(value, int) else cell(value)


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    lines: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += _flat(value, f"{prefix}{name}.")
        else:
            lines.append((prefix + name, value))
    return lines


def _align(columns: Sequence[str], texts: list[list[str]], numeric: list[bool]) -> None:
    widths = [max([len(name), *(len(row[place]) for row in texts)]) for place, name in enumerate(columns)]
    for row in [list(columns), *texts]:
        cells = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        ]
        typer.echo("  ".join(cells).rstrip())


def _draw(columns: Sequence[str], texts: list[list[str]], numeric: list[bool]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, right in zip(columns, numeric, strict=True):
        table.add_column(name, justify="right" if right else "left", overflow="fold", header_style="bold")
    for row in texts:
        table.add_row(*row)
    Console(markup=False, highlight=False).print(table)
