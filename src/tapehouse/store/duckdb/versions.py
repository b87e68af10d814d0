"""Which version of a row counts: for a read, and for a write that meets stored rows. See docs/design/versions.md."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tapehouse.model import Kind, OnConflict
from tapehouse.store.archive.files import PLACE, value_fields
from tapehouse.store.archive.spans import Delete

_IDENTITY = {Kind.TRADES: ("price", "size"), Kind.QUOTES: ("bid", "bid_size", "ask", "ask_size")}


def version_columns(kind: Kind) -> tuple[str, ...]:
    """What must be known of stored rows, beside whether they are lost, to tell which of them count."""
    common = ("timestamp", "commit", "source")
    return common if kind is Kind.BARS else (*common, *_IDENTITY[kind], "id", "ordinal", PLACE)


def visible(
    kind: Kind, rows: pa.Table, *, as_of: int, source: int | None = None, deletes: Sequence[Delete] = ()
) -> np.ndarray:
    """Positions, in time order, of the versions of one symbol that a read as of that commit sees.

    `rows` has `version_columns` and lost.
    """
    times, commits = rows["timestamp"].to_numpy(), rows["commit"].to_numpy()
    lost = np.asarray(rows["lost"].to_numpy(), bool)
    kept = (commits <= as_of) & not_deleted(times, commits, deletes, as_of)
    kept &= ~lost if source is None else rows["source"].to_numpy() == source
    position = np.flatnonzero(kept)
    order = position[np.lexsort((~lost[position], commits[position], times[position]))]
    newest = order[_last_of_equal(times[order])] if kind is Kind.BARS else _newest_by_identity(kind, rows, order)
    place = newest if kind is Kind.BARS else rows[PLACE].to_numpy()[newest]
    return np.asarray(newest[np.lexsort((place, commits[newest], times[newest]))])


def not_deleted(times: np.ndarray, commits: np.ndarray, deletes: Sequence[Delete], as_of: int) -> np.ndarray:
    """Which versions no delete up to `as_of` hides."""
    kept = np.ones(len(times), bool)
    for delete in deletes:
        if delete.version <= as_of:
            kept &= ~((commits < delete.version) & (times >= delete.start) & (times < delete.end))
    return kept


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


class Verdict(IntEnum):
    """What becomes of a written row."""

    UNCHANGED = 0
    INSERTED = 1
    REPLACED = 2
    REJECTED = 3


def judge(
    cursor: duckdb.DuckDBPyConnection,
    kind: Kind,
    incoming: pa.Table,
    stored: pa.Table,
    *,
    on_conflict: OnConflict,
    prefer: Sequence[int],
    repeats: bool,
) -> np.ndarray:
    """The verdict on each incoming row, given every stored version (not deleted) of the keys that it may meet.

    Stored rows of one commit stand as they were written. `repeats` says whether the table may have two rows of one
    key. Under `error`, `REPLACED` and `REJECTED` both mean a conflict.
    """
    cursor.register("incoming", incoming.append_column("pos", pa.array(np.arange(incoming.num_rows))))
    cursor.register("stored", stored.append_column("pos", pa.array(np.arange(stored.num_rows))))
    try:
        verdicts = cursor.sql(
            _judgement(kind, incoming.column_names, on_conflict, prefer, repeats=repeats)
        ).fetchnumpy()
    finally:
        cursor.unregister("incoming")
        cursor.unregister("stored")
    judged = np.empty(incoming.num_rows, "i1")
    judged[np.asarray(verdicts["pos"])] = np.asarray(verdicts["verdict"])
    return judged


def _judgement(
    kind: Kind, columns: Sequence[str], on_conflict: OnConflict, prefer: Sequence[int], *, repeats: bool
) -> str:
    values = [f.name for f in value_fields(kind)]
    key, same_key = _key(kind), " AND ".join(f"n.{k} IS NOT DISTINCT FROM o.{k}" for k in _key_names(kind))
    present = ", ".join(f'"{v}"' if v in columns else f"NULL AS {v}" for v in values)
    equal = " AND ".join(f'n."{v}" IS NOT DISTINCT FROM {{0}}."{v}"' for v in [*values, "source"])
    prefer = prefer if on_conflict is OnConflict.PREFER else ()
    keys = ", ".join(_key_names(kind))
    stored_values = ", ".join(f'"{v}"' for v in values)
    # Without rivals in the table only a source's newest version counts; `error` lets no loser pass.
    newest = "false" if on_conflict is OnConflict.ERROR else equal.format("own")
    any_version = f"EXISTS (SELECT 1 FROM versions v WHERE {same_key.replace('o.', 'v.')} AND {equal.format('v')})"
    heard = f"n.rival AND {any_version}" if repeats and on_conflict is not OnConflict.ERROR else "false"
    places = _places(keys, f"{keys}, {stored_values}, source", on_conflict) if repeats else _ALONE
    wins = {"replace": "true", "keep": "false", "prefer": "n.rank <= o.rank", "error": "true"}[on_conflict]
    return f"""
    WITH n AS (
        SELECT *, {places}
        FROM (SELECT pos, symbol, timestamp, source, {present}, {key}, {_rank(prefer)} AS rank FROM incoming)),
    versions AS (SELECT *, {key}, {_rank(prefer)} AS rank FROM stored),
    o AS (SELECT * FROM versions WHERE NOT lost
          QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY commit DESC) = 1),
    own AS (SELECT * FROM versions
            QUALIFY row_number() OVER (PARTITION BY {keys}, source ORDER BY commit DESC, lost, pos DESC) = 1)
    SELECT n.pos, CASE
        WHEN n.again > 1 THEN {Verdict.UNCHANGED:d}
        WHEN n.place = 1 AND o.symbol IS NULL THEN {Verdict.INSERTED:d}
        WHEN n.place = 1 AND {equal.format("o")} THEN {Verdict.UNCHANGED:d}
        WHEN n.place = 1 AND {wins} THEN {Verdict.REPLACED:d}
        WHEN own.symbol IS NOT NULL AND {newest} THEN {Verdict.UNCHANGED:d}
        WHEN {heard} THEN {Verdict.UNCHANGED:d}
        ELSE {Verdict.REJECTED:d} END AS verdict
    FROM n LEFT JOIN o ON {same_key}
    LEFT JOIN own ON {same_key.replace("o.", "own.")} AND n.source = own.source"""


_ALONE = "1 AS place, 1 AS again, false AS rival"


def _places(keys: str, all_columns: str, on_conflict: OnConflict) -> str:
    """A row's place among those of its key in the table, how often it has stood there, and whether its source differs
    with itself. The later wins among rows of equal rank; under `keep` the first does."""
    best = "pos" if on_conflict is OnConflict.KEEP else "rank, pos DESC"
    return (
        f"row_number() OVER (PARTITION BY {keys} ORDER BY {best}) AS place, "
        f"row_number() OVER (PARTITION BY {all_columns} ORDER BY {best}) AS again, "
        f"count(*) OVER (PARTITION BY {keys}, source) > count(*) OVER (PARTITION BY {all_columns}) AS rival"
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
