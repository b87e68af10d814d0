"""Which version of a row counts: for a read, and for a write that meets stored rows. See docs/design/versions.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from heapq import nsmallest
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tapehouse.model import Kind, OnConflict
from tapehouse.store.archive.columns import one_chunk
from tapehouse.store.archive.files import PLACE, value_fields
from tapehouse.store.archive.spans import Dataset
from tapehouse.store.hiding import Delete, Entry, Undo, active, not_hidden

_IDENTITY = {Kind.TRADES: ("price", "size"), Kind.QUOTES: ("bid", "bid_size", "ask", "ask_size")}


def version_columns(kind: Kind) -> tuple[str, ...]:
    """What must be known of stored rows, beside whether they are lost, to tell which of them count."""
    common = ("timestamp", "commit", "source")
    return common if kind is Kind.BARS else (*common, *_IDENTITY[kind], "id", "ordinal", PLACE)


def visible(
    kind: Kind, rows: pa.Table, *, as_of: int, source: int | None = None, deletes: Sequence[Entry] = ()
) -> np.ndarray:
    """Positions, in time order, of the versions of one symbol that a read as of that commit sees.

    `rows` has `version_columns` and lost.
    """
    times, commits = rows["timestamp"].to_numpy(), rows["commit"].to_numpy()
    lost = np.asarray(rows["lost"].to_numpy(), bool)
    kept = (commits <= as_of) & not_hidden(times, commits, deletes, as_of)
    kept &= ~lost if source is None else rows["source"].to_numpy() == source
    position = np.flatnonzero(kept)
    order = position[np.lexsort((~lost[position], commits[position], times[position]))]
    newest = order[_last_of_equal(times[order])] if kind is Kind.BARS else _newest_by_identity(kind, rows, order)
    place = newest if kind is Kind.BARS else rows[PLACE].to_numpy()[newest]
    return np.asarray(newest[np.lexsort((place, commits[newest], times[newest]))])


def _last_of_equal(ordered: np.ndarray) -> np.ndarray:
    last = np.ones(len(ordered), bool)
    last[:-1] = ordered[1:] != ordered[:-1]
    return last


def _newest_by_identity(kind: Kind, rows: pa.Table, order: np.ndarray) -> np.ndarray:
    if len(order) == 0:
        return order
    unnamed = pc.is_null(rows["id"])
    keys = {"timestamp": rows["timestamp"], "source": rows["source"], "id": rows["id"]}
    for name in (*_IDENTITY[kind], "ordinal"):
        keys[name] = pc.if_else(unnamed, rows[name], pa.scalar(None, rows[name].type))
    table = pa.table(keys).take(pa.array(order)).append_column("place", pa.array(np.arange(len(order))))
    newest = table.group_by(list(keys)).aggregate([("place", "max")])["place_max"].to_numpy()
    return np.asarray(order[newest])


class Effect(NamedTuple):
    """What an undo changes for one symbol: the times of keys whose current row went away, came back, or is another.

    `left` are those that the undone commits had changed and others have since, `left_by` the commits that did;
    `after` the times of all rows that are current then.
    """

    gone: np.ndarray
    back: np.ndarray
    other: np.ndarray
    left: np.ndarray
    left_by: np.ndarray
    after: np.ndarray


EXAMPLES = 10
"""Rows that an undo left, by name."""


@dataclass(slots=True)
class Remains:
    """A symbol in the times that an undo touches: rows that come and go, and the first and last that is there then."""

    gained: int = 0
    first: int | None = None
    last: int | None = None


@dataclass(slots=True)
class Undoing:
    """One commit of an undo, found out before it is made: its entries by symbol, and what it changes.

    `back`, `other` and `gone` count keys as `Effect` does; `spans` says where they are, `symbols` what is there then.
    """

    dataset: Dataset
    entries: dict[int, Undo]
    symbols: dict[int, Remains] = field(default_factory=dict)
    spans: Counter[int] = field(default_factory=Counter)
    back: int = 0
    other: int = 0
    gone: int = 0
    left: int = 0
    examples: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def version(self) -> int:
        """The number of the commit."""
        return next(iter(self.entries.values())).version

    @property
    def span(self) -> tuple[int, int]:
        """`[start, end)` of all that it touches."""
        return min(e.start for e in self.entries.values()), max(e.end for e in self.entries.values())

    def numbered(self, version: int) -> Undoing:
        """The same as another commit."""
        return replace(self, entries={symbol: e._replace(version=version) for symbol, e in self.entries.items()})

    def add(self, symbol: int, name: str, span: int, found: Effect) -> None:
        """Take note of what it changes in one span of a symbol."""
        held = self.symbols.setdefault(symbol, Remains())
        held.gained += len(found.back) - len(found.gone)
        if len(found.after):
            first, last = int(found.after.min()), int(found.after.max())
            held.first = first if held.first is None else min(first, held.first)
            held.last = last if held.last is None else max(last, held.last)
        # Also where nothing changes, the span's files are to be written anew, or reads would go on asking.
        self.spans[span] += max(1, len(found.back) + len(found.other) + len(found.gone))
        self.back += len(found.back)
        self.other += len(found.other)
        self.gone += len(found.gone)
        self.left += len(found.left)
        left = zip(found.left.tolist(), found.left_by.tolist(), strict=True)
        self.examples = nsmallest(EXAMPLES, [*self.examples, *((name, time, by) for time, by in left)])


def effect(kind: Kind, rows: pa.Table, entries: Sequence[Entry], undo: Undo) -> Effect:
    """What that undo, the next entry of a symbol, changes among all versions of it (as for `visible`)."""
    keys, count = _keys(kind, rows)
    as_of, then = undo.version - 1, (*entries, undo)
    shown = []
    for deletes, commit in ((entries, as_of), (then, undo.version)):
        current = np.full(count, -1)
        positions = visible(kind, rows, as_of=commit, deletes=deletes)
        current[keys[positions]] = positions
        shown.append(current)
    before, after = shown
    times = np.empty(count, "i8")
    times[keys] = rows["timestamp"].to_numpy()
    changed = before != after
    counted, counting = active(entries, as_of), active(then, undo.version)
    # Undone commits count before the undo; those whose undo it undoes count after it.
    undone = _superseded(rows, keys, count, counted, counting)
    redone = _superseded(rows, keys, count, counting, counted)
    by = np.where(undone, undone, redone)
    by[changed] = 0
    left = np.flatnonzero(by)
    return Effect(
        times[changed & (after < 0)],
        times[changed & (before < 0)],
        times[changed & (before >= 0) & (after >= 0)],
        times[left],
        by[left],
        times[after >= 0],
    )


def _superseded(
    rows: pa.Table, keys: np.ndarray, count: int, entries: Sequence[Entry], others: Sequence[Entry]
) -> np.ndarray:
    """By key, the commit that changed it last, when one that counts by `entries` and not by `others` had changed it
    before; else 0."""
    times, commits = rows["timestamp"].to_numpy(), rows["commit"].to_numpy()
    counted = ~np.asarray(rows["lost"].to_numpy(), bool) & _counting(commits, entries)
    # The delete that ended each version, the first that came after it; 0 when there was none.
    ended = np.zeros(rows.num_rows, "i8")
    for entry in entries:  # newest first
        if isinstance(entry, Delete):
            ended[(commits < entry.version) & (times >= entry.start) & (times < entry.end)] = entry.version
    ours = [_counting(by, entries) & ~_counting(by, others) & (by > 0) for by in (commits, ended)]
    touched = np.zeros(count, bool)
    touched[keys[counted & (ours[0] | ours[1])]] = True
    order = np.flatnonzero(counted)
    order = order[np.argsort(commits[order], kind="stable")]
    last, by_us = np.zeros(count, "i8"), np.zeros(count, bool)
    last[keys[order]] = np.where(ended[order], ended[order], commits[order])
    by_us[keys[order]] = np.where(ended[order], ours[1][order], ours[0][order])
    return np.where(touched & ~by_us, last, 0)


def _counting(commits: np.ndarray, entries: Sequence[Entry]) -> np.ndarray:
    """Which commits none of those undos, which count, hides."""
    kept = np.ones(len(commits), bool)
    for entry in entries:
        if isinstance(entry, Undo):
            kept &= ~entry.commits.hold(commits)
    return kept


def _keys(kind: Kind, rows: pa.Table) -> tuple[np.ndarray, int]:
    """The key of each row as a number from 0, and how many keys there are."""
    columns = [rows["timestamp"].to_numpy()]
    if kind is not Kind.BARS:
        unnamed = pc.is_null(rows["id"]).to_numpy()
        ids = one_chunk(rows["id"].dictionary_encode()).indices.fill_null(-1)
        columns += [rows["source"].to_numpy(), ids.to_numpy()]
        for name in ("ordinal", *_IDENTITY[kind]):
            values = pc.fill_null(rows[name], 0).to_numpy()
            columns.append(np.where(unnamed, values, 0))
    order = np.lexsort(columns)
    new = np.zeros(rows.num_rows, bool)
    for column in columns:
        new[1:] |= column[order][1:] != column[order][:-1]
    keys = np.empty(rows.num_rows, "i8")
    keys[order] = np.cumsum(new)
    return keys, int(keys.max(initial=-1)) + 1


class Verdict(IntEnum):
    """What becomes of a written row."""

    UNCHANGED = 0
    INSERTED = 1
    REPLACED = 2
    REJECTED = 3


class Judged(NamedTuple):
    """The verdict on each row of a write, and what it met (`store.met`)."""

    verdicts: np.ndarray
    met: np.ndarray


def judge(
    cursor: duckdb.DuckDBPyConnection,
    kind: Kind,
    incoming: pa.Table,
    stored: pa.Table,
    *,
    on_conflict: OnConflict,
    prefer: Sequence[int],
    repeats: bool,
) -> Judged:
    """The verdict on each incoming row, and what it met, given every stored version (not deleted) of its key.

    Stored rows of one commit stand as they were written. `repeats` says whether the table may have two rows of one
    key. Under `error`, `REPLACED` and `REJECTED` both mean a conflict.
    """
    cursor.register("incoming", incoming.append_column("pos", pa.array(np.arange(incoming.num_rows))))
    cursor.register("stored", stored.append_column("pos", pa.array(np.arange(stored.num_rows))))
    try:
        found = cursor.sql(_judgement(kind, incoming.column_names, on_conflict, prefer, repeats=repeats)).fetchnumpy()
    finally:
        cursor.unregister("incoming")
        cursor.unregister("stored")
    judged = Judged(np.empty(incoming.num_rows, "i1"), np.empty(incoming.num_rows, "i8"))
    for name, values in zip(("verdict", "met"), judged, strict=True):
        values[np.asarray(found["pos"])] = np.asarray(found[name])
    return judged


def _judgement(
    kind: Kind, columns: Sequence[str], on_conflict: OnConflict, prefer: Sequence[int], *, repeats: bool
) -> str:
    values = [f.name for f in value_fields(kind)]
    key, same_key = _key(kind), " AND ".join(f"n.{k} IS NOT DISTINCT FROM o.{k}" for k in _key_names(kind))
    present = ", ".join(f'"{v}"' if v in columns else f"NULL AS {v}" for v in values)
    alike = " AND ".join(f'n."{v}" IS NOT DISTINCT FROM o."{v}"' for v in values)
    equal = " AND ".join(f'n."{v}" IS NOT DISTINCT FROM {{0}}."{v}"' for v in [*values, "source"])
    prefer = prefer if on_conflict is OnConflict.PREFER else ()
    keys = ", ".join(_key_names(kind))
    stored_values = ", ".join(f'"{v}"' for v in values)
    # Without rivals in the table only a source's newest version counts; `error` lets no loser pass.
    newest = "false" if on_conflict is OnConflict.ERROR else equal.format("own")
    any_version = f"EXISTS (SELECT 1 FROM versions v WHERE {same_key.replace('o.', 'v.')} AND {equal.format('v')})"
    heard = f"n.rival AND {any_version}" if repeats and on_conflict is not OnConflict.ERROR else "false"
    places = _places(keys, f"{keys}, {stored_values}, source", on_conflict) if repeats else _ALONE
    wins = {
        "replace": "true",
        "keep": "false",
        "own": "n.source = o.source",
        "prefer": "n.rank <= o.rank",
        "error": "true",
    }[on_conflict]
    return f"""
    WITH n AS (
        SELECT *, {places}
        FROM (SELECT pos, symbol, timestamp, source, {present}, {key}, {_rank(prefer)} AS rank FROM incoming)),
    versions AS (SELECT *, {key}, {_rank(prefer)} AS rank FROM stored),
    o AS (SELECT * FROM versions WHERE NOT lost
          QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY commit DESC) = 1),
    own AS (SELECT * FROM versions
            QUALIFY row_number() OVER (PARTITION BY {keys}, source ORDER BY commit DESC, lost, pos DESC) = 1),
    judged AS (SELECT n.pos, n.place, n.again, n.best, n.twin, o.commit, own.commit AS own_commit,
        n.source = o.source AS same_source, {alike} AS alike, CASE
        WHEN n.again > 1 THEN {Verdict.UNCHANGED:d}
        WHEN n.place = 1 AND o.symbol IS NULL THEN {Verdict.INSERTED:d}
        WHEN n.place = 1 AND {equal.format("o")} THEN {Verdict.UNCHANGED:d}
        WHEN n.place = 1 AND {wins} THEN {Verdict.REPLACED:d}
        WHEN own.symbol IS NOT NULL AND {newest} THEN {Verdict.UNCHANGED:d}
        WHEN {heard} THEN {Verdict.UNCHANGED:d}
        ELSE {Verdict.REJECTED:d} END AS verdict
        FROM n LEFT JOIN o ON {same_key}
        LEFT JOIN own ON {same_key.replace("o.", "own.")} AND n.source = own.source)
    SELECT pos, verdict, CASE
        WHEN verdict = {Verdict.INSERTED:d} THEN 0
        WHEN again > 1 THEN -1 - twin
        WHEN verdict = {Verdict.UNCHANGED:d} AND NOT (place = 1 AND alike AND same_source) THEN own_commit * 4 + 3
        WHEN place > 1 AND verdict <> {Verdict.UNCHANGED:d} THEN -1 - best
        ELSE commit * 4 + 2 * alike::BIGINT + same_source::BIGINT END AS met
    FROM judged"""


_ALONE = "1 AS place, 1 AS again, false AS rival, pos AS best, pos AS twin"


def _places(keys: str, all_columns: str, on_conflict: OnConflict) -> str:
    """A row's place among those of its key in the table, how often it has stood there, whether its source differs
    with itself, and where the first in place stands, and the first of those equal to it. The later wins among rows of
    equal rank; under `keep` the first does."""
    best = "pos" if on_conflict is OnConflict.KEEP else "rank, pos DESC"
    return (
        f"row_number() OVER (PARTITION BY {keys} ORDER BY {best}) AS place, "
        f"row_number() OVER (PARTITION BY {all_columns} ORDER BY {best}) AS again, "
        f"count(*) OVER (PARTITION BY {keys}, source) > count(*) OVER (PARTITION BY {all_columns}) AS rival, "
        f"first_value(pos) OVER (PARTITION BY {keys} ORDER BY {best}) AS best, "
        f"first_value(pos) OVER (PARTITION BY {all_columns} ORDER BY {best}) AS twin"
    )


def _rank(prefer: Sequence[int]) -> str:
    cases = " ".join(f"WHEN {int(source)} THEN {rank}" for rank, source in enumerate(prefer))
    return f"CASE source {cases} ELSE {len(prefer)} END" if cases else "0"


def _key_names(kind: Kind) -> list[str]:
    if kind is Kind.BARS:
        return ["symbol", "timestamp"]
    return ["symbol", "timestamp", "source", "key_id", "key_ordinal", *[f"key_{v}" for v in _IDENTITY[kind]]]


def _key(kind: Kind) -> str:
    if kind is Kind.BARS:
        return "NULL AS keyless"
    parts = [f"CASE WHEN id IS NULL THEN {v} END AS key_{v}" for v in ("ordinal", *_IDENTITY[kind])]
    return ", ".join(["id AS key_id", *parts])
