"""Hashes of rows: the formula itself, written out again in plain Python, and what sums do not depend on."""

from __future__ import annotations

import hashlib
import struct
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.codec.content import BLOCK_ROWS, Sum, sums_of
from tapehouse.model import SCHEMAS, Kind

MASK = 2**64 - 1
PRICES = ["open", "high", "low", "close", "volume", "vwap", "trades", "adj_close", "price", "size"]
TICKS = ["bid", "bid_size", "ask", "ask_size", "side", "exchange", "conditions", "id"]
NUMBERS = ["source", "timestamp", *PRICES, *TICKS]
NULL = 0xD1B54A32D192ED03


def mix(word: int) -> int:
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & MASK
    return word ^ (word >> 31)


def constant(number: int) -> int:
    return mix((number + 1) * 0x9E3779B97F4A7C15 & MASK) | 1


def fold(word: int) -> int:
    return word ^ (word >> 32)


def text(value: str) -> int:
    data = value.encode()
    if len(data) > 256:
        data = hashlib.blake2b(data, digest_size=8).digest()
    total = constant(1_000) * len(data)
    for place in range(0, len(data), 8):
        word = int.from_bytes(data[place : place + 8].ljust(8, b"\0"), "little")
        total += constant(1_001 + place // 8) * fold(word)
    return mix(total & MASK)


def word_of(value: Any) -> int:
    if value is None:
        return NULL
    if isinstance(value, str):
        return text(value)
    if isinstance(value, float):
        return int(struct.unpack("<Q", struct.pack("<d", value + 0.0))[0])
    return int(value) & MASK


def row_hash(kind: Kind, row: dict[str, Any], source: str) -> int:
    total = constant(0) * fold(text(source))
    for name in SCHEMAS[kind].names:
        if name not in ("symbol", "source", "ordinal"):
            total += constant(NUMBERS.index(name)) * fold(word_of(row.get(name)))
    return mix(total & MASK)


def table_of(kind: Kind, rows: list[dict[str, Any]]) -> pa.Table:
    schema = SCHEMAS[kind]
    names = ["symbol", *(name for name in schema.names if name in rows[0] and name != "symbol")]
    columns = []
    for name in names:
        values = [row[name] for row in rows]
        if name == "timestamp":
            columns.append(pa.array(values, pa.int64()).cast(schema.field(name).type))
        else:
            columns.append(pa.array(values, pa.string()).dictionary_encode() if name == "symbol" else
                           pa.array(values, schema.field(name).type))  # fmt: skip
    return pa.table(columns, names=names)


floats = st.floats(allow_nan=False, allow_infinity=False)
texts = st.one_of(st.none(), st.text(max_size=20), st.text(min_size=250, max_size=300))
trades = st.fixed_dictionaries(
    {
        "symbol": st.sampled_from(["A", "B", "C"]),
        "timestamp": st.integers(-(2**62), 2**62),
        "price": floats,
        "size": floats,
        "side": texts,
        "id": texts,
    }
)


@given(rows=st.lists(trades, min_size=1, max_size=30), source=st.text(min_size=1, max_size=40))
def test_the_formula(rows: list[dict[str, Any]], source: str) -> None:
    expected: dict[str, Sum] = {}
    for row in rows:
        one = Sum(1, row_hash(Kind.TRADES, row, source))
        expected[row["symbol"]] = expected.get(row["symbol"], Sum()) + one
    assert sums_of(Kind.TRADES, table_of(Kind.TRADES, rows), source) == expected


def test_the_hash_of_one_bar_never_changes() -> None:
    bar = {"symbol": "A", "timestamp": 1_704_205_800_000_000_000, "open": 10.0, "high": 12.5, "low": 9.25}
    table = table_of(Kind.BARS, [{**bar, "close": 11.0, "volume": 100.0, "trades": 7}])
    assert sums_of(Kind.BARS, table, "file:bars.csv") == {"A": Sum(1, GOLDEN_BAR)}


GOLDEN_BAR = 10734988785566205991


def many(count: int) -> pa.Table:
    chance = np.random.default_rng(7)
    symbols = pa.DictionaryArray.from_arrays(pa.array(chance.integers(0, 5, count, "i4")), pa.array(list("ABCDE")))
    times = pa.array(chance.integers(0, 2**60, count)).cast(SCHEMAS[Kind.TRADES].field("timestamp").type)
    prices, sizes = pa.array(np.round(chance.random(count), 2)), pa.array(chance.random(count))
    return pa.table({"symbol": symbols, "timestamp": times, "price": prices, "size": sizes})


@settings(max_examples=10)
@given(seed=st.integers(0, 1_000), cuts=st.lists(st.integers(0, 3 * BLOCK_ROWS), max_size=3))
def test_order_and_parts_do_not_count(seed: int, cuts: list[int]) -> None:
    table = many(2 * BLOCK_ROWS + 77)
    whole = sums_of(Kind.TRADES, table, "x")
    order = np.random.default_rng(seed).permutation(table.num_rows)
    assert sums_of(Kind.TRADES, table.take(pa.array(order)), "x") == whole
    edges = sorted({0, *(min(cut, table.num_rows) for cut in cuts), table.num_rows})
    parts = [table.slice(low, high - low) for low, high in pairwise(edges)]
    assert sums_of(Kind.TRADES, pa.concat_tables(parts), "x") == whole


def test_a_column_of_sources_is_the_same_as_being_told_the_source() -> None:
    table = many(1_000)
    codes = pa.array(np.zeros(1_000, np.int32))
    column = pa.DictionaryArray.from_arrays(codes, pa.array(["file:x.csv"]))
    assert sums_of(Kind.TRADES, table.append_column("source", column)) == sums_of(Kind.TRADES, table, "file:x.csv")


def test_an_absent_column_is_one_of_nulls() -> None:
    table = many(100)
    assert sums_of(Kind.TRADES, table.append_column("side", pa.nulls(100, pa.string())), "x") == sums_of(
        Kind.TRADES, table, "x"
    )


ROW = {"symbol": "A", "timestamp": 60, "open": 1.0, "high": 2.0, "low": 0.5, "close": 1.5, "volume": 7.0, "vwap": 0.0}


@pytest.mark.parametrize(
    "change",
    [
        {"timestamp": 61},
        {"open": 1.5, "close": 1.0},
        {"open": -1.0, "close": -1.5},
        {"high": 4.0, "volume": 14.0},
        {"low": 0.5000000000000001},
        {"vwap": None},
        {"vwap": 5e-324},
    ],
)
def test_what_is_not_the_same_differs(change: dict[str, Any]) -> None:
    one, other = (sums_of(Kind.BARS, table_of(Kind.BARS, [row]), "x") for row in (ROW, {**ROW, **change}))
    assert one != other


def test_zero_has_no_sign() -> None:
    minus = {**ROW, "vwap": -0.0}
    assert sums_of(Kind.BARS, table_of(Kind.BARS, [ROW]), "x") == sums_of(Kind.BARS, table_of(Kind.BARS, [minus]), "x")
