"""What rows of a write met: others of their key, in the write itself or stored, with the same values or not.

A judgement says it as one number for each row, so that it costs next to nothing where nothing met: 0 for nothing,
`in_write` for a row of the same write, `in_store` for a stored one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tapehouse.model import SCHEMAS, Kind
from tapehouse.store.base import Met

ALIKE, OWN = 2, 1


def in_write(position: int) -> int:
    """It met the row at that position of the same write."""
    return -1 - position


def in_store(commit: int, *, alike: bool, own: bool) -> int:
    """It met a row of that commit, which has the same values, source aside (`alike`), and the same source (`own`)."""
    return commit * 4 + alike * ALIKE + own * OWN


def met_of(kind: Kind, table: pa.Table, rows: Sequence[int], codes: np.ndarray | None) -> list[Met]:
    """What the rows of each table met, of tables of so many `rows` that were written as one `table`.

    Of two rows of one write the later counts as the one that met the other, whichever of them prevailed.
    """
    if codes is None or not codes.any():
        return [Met() for _ in rows]
    ends = np.cumsum(rows, dtype="i8")
    inside, other = np.flatnonzero(codes < 0), -1 - codes[codes < 0]
    alike, later = _alike(kind, table, inside, other), np.maximum(inside, other)
    together = np.searchsorted(ends, inside, "right") == np.searchsorted(ends, other, "right")
    found = []
    for end, count in zip(ends.tolist(), rows, strict=True):
        mine = (later >= end - count) & (later < end)
        within = [int((mine & same & which).sum()) for same in (alike, ~alike) for which in (together, ~together)]
        stored = codes[end - count : end]
        own, others = _by_commit(stored[stored > 0])
        found.append(
            Met(
                duplicates_in_table=within[0],
                duplicates_between=within[1],
                conflicts_in_table=within[2],
                conflicts_between=within[3],
                own=own,
                others=others,
            )
        )
    return found


def _by_commit(codes: np.ndarray) -> tuple[dict[int, tuple[int, int]], dict[int, tuple[int, int]]]:
    """Duplicates and conflicts with rows of each commit: those of the same source, and those of others."""
    found: tuple[dict[int, tuple[int, int]], dict[int, tuple[int, int]]] = ({}, {})
    for code, count in zip(*(each.tolist() for each in np.unique(codes, return_counts=True)), strict=True):
        of = found[0 if code & OWN else 1]
        duplicates, conflicts = of.get(code >> 2, (0, 0))
        of[code >> 2] = (duplicates + count, conflicts) if code & ALIKE else (duplicates, conflicts + count)
    return found


def _alike(kind: Kind, table: pa.Table, ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether pairs of rows have the same values, source aside."""
    same = np.ones(len(ones), bool)
    for name in SCHEMAS[kind].names:
        if len(ones) and name in table.column_names and name not in ("symbol", "timestamp", "source"):
            one, other = (table.column(name).take(pa.array(places)) for places in (ones, others))
            same &= _equal(one, other)
    return same


def _equal(one: Any, other: Any) -> np.ndarray:
    if pa.types.is_dictionary(one.type):
        one, other = one.cast(one.type.value_type), other.cast(other.type.value_type)
    none = pc.and_(pc.is_null(one), pc.is_null(other))
    return np.asarray(pc.or_(none, pc.fill_null(pc.equal(one, other), False)).to_numpy(), bool)
