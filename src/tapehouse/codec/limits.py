"""How much a body may hold, counted before it is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from tapehouse.errors import LimitExceeded


@dataclass(frozen=True)
class Limits:
    """`bytes` counts columns without their compression."""

    rows: int
    bytes: int


def check_rows(rows: int, most: int) -> None:
    """Raise `LimitExceeded` for more rows than that."""
    if rows > most:
        raise LimitExceeded(f"the body has {rows:,} rows; one request takes {most:,}", limit=most)
