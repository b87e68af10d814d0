"""A hash of rows that does not depend on their order, so that it can be made in parts, anywhere. No I/O.

The formula, which is part of what is stored and does not change (`FORMULA` names it). All arithmetic is modulo 2**64,
`mix` is the finaliser of splitmix64 (Steele, Lea and Flood, 2014), `fold(w) = w ^ (w >> 32)`:

    row   = mix(K[source] * fold(text(source)) + sum over columns of K[column] * fold(word(value)))
    rows  = sum of row over all rows of one kind, interval and symbol
    text  = mix(T[0] * length + sum over i of T[i + 1] * fold(word i)) of the UTF-8 bytes as little-endian words, padded
            with zeros; of more than 256 bytes, the first eight bytes of their BLAKE2b as one such word

`word` is an int64 or the bits of a float64 (-0.0 as 0.0) as they are, `text` of a text, and `NULL` of a missing value
or column. `K[c]` is `mix((c + 1) * GOLDEN) | 1` with the number `c` of the column below, and `T[i]` is
`mix((i + 1_001) * GOLDEN) | 1`. The multilinear sum is universal (Lemire and Kaser, 2014), folding brings the high
bits of a word, which alone differ between round prices, to where they count. The symbol is not in it, as hashes are
kept by symbol, nor is `ordinal`, which is the place among equal rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache

import msgspec
import numpy as np
import pyarrow as pa

from tapehouse.model import SCHEMAS, Kind

FORMULA = "rows-1"
BLOCK_ROWS = 16_384  # a block's words and sums stay in the processor's cache
GOLDEN = 0x9E3779B97F4A7C15
NULL = np.uint64(0xD1B54A32D192ED03)
LONG_BYTES = 256
_PRICES = ("open", "high", "low", "close", "volume", "vwap", "trades", "adj_close")
_TICKS = ("price", "size", "bid", "bid_size", "ask", "ask_size", "side", "exchange", "conditions", "id")
_COLUMNS = ("source", "timestamp", *_PRICES, *_TICKS)
"""By their numbers in the formula: new ones go to the end."""
_NOT_HASHED = {"symbol", "source", "ordinal"}
_HASHED = {kind: tuple(name for name in schema.names if name not in _NOT_HASHED) for kind, schema in SCHEMAS.items()}
_32 = np.uint64(32)


class Sum(msgspec.Struct, frozen=True):
    """How many rows, and the sum of their hashes modulo 2**64."""

    rows: int = 0
    hash: int = 0

    def __add__(self, other: Sum) -> Sum:
        return Sum(self.rows + other.rows, (self.hash + other.hash) % 2**64)


Sums = dict[str, Sum]
"""By symbol."""


def add_to(sums: Sums, more: Sums) -> None:
    """Count `more` into `sums`."""
    for symbol, each in more.items():
        sums[symbol] = sums.get(symbol, Sum()) + each


def mix(words: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser, in place."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        words ^= words >> np.uint64(shift)
        words *= np.uint64(factor)
    words ^= words >> np.uint64(31)
    return words


def _constants(first: int, count: int) -> np.ndarray:
    return mix(np.arange(first + 1, first + count + 1, dtype=np.uint64) * np.uint64(GOLDEN)) | np.uint64(1)


_K = dict(zip(_COLUMNS, _constants(0, len(_COLUMNS)), strict=True))
_T = _constants(1_000, LONG_BYTES // 8 + 1)


def sums_of(kind: Kind, table: pa.Table | pa.RecordBatch, source: str | None = None) -> Sums:
    """The sum of each symbol's rows; `source` is that of all rows, None when there is a column of it."""
    sums: Sums = {}
    for batch in _batches(table):
        if batch.num_rows:
            add_to(sums, by_symbol(batch.column("symbol"), hashes_of(kind, batch, source)))
    return sums


def by_symbol(symbols: pa.DictionaryArray, hashes: np.ndarray, rows: np.ndarray | None = None) -> Sums:
    """Hashes summed for each symbol; `rows` says how many rows each stands for."""
    if len(symbols.dictionary) == 1 and rows is None:
        return {symbols.dictionary[0].as_py(): Sum(len(symbols), int(hashes.sum()))} if len(symbols) else {}
    codes = symbols.indices.to_numpy()
    starts = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]]))
    counts = np.ones(len(codes), np.int64) if rows is None else rows
    totals, counted = (np.zeros(len(symbols.dictionary), kind) for kind in (np.uint64, np.int64))
    np.add.at(totals, codes[starts], np.add.reduceat(hashes, starts))
    np.add.at(counted, codes[starts], np.add.reduceat(counts, starts))
    names = symbols.dictionary
    return {names[i].as_py(): Sum(int(counted[i]), int(totals[i])) for i in np.flatnonzero(counted).tolist()}


def keys_of(hashes: np.ndarray, symbols: pa.DictionaryArray) -> np.ndarray:
    """The hashes mixed with the symbols, which tells equal rows of two symbols apart; not part of what is kept."""
    return mix(hashes + _texts(symbols.dictionary)[symbols.indices.to_numpy()])


def hashes_of(kind: Kind, batch: pa.RecordBatch, source: str | None = None) -> np.ndarray:
    """The hash of each row, as uint64."""
    start, columns = 0, []
    given = dict(zip(batch.schema.names, batch.columns, strict=True))
    for name in _HASHED[kind]:
        column = given.get(name)
        if column is None or column.null_count == batch.num_rows:
            start += _term(name, int(NULL))
        else:
            columns.append((_K[name], _words(column)))
    if source is None:
        source = _sole(given["source"])
    if source is None:
        columns.append((_K["source"], _words(given["source"])))
    else:
        start += _of_source(source)
    hashes = np.full(batch.num_rows, start % 2**64, np.uint64)
    scratch = np.empty((2, BLOCK_ROWS), np.uint64)
    for first in range(0, batch.num_rows, BLOCK_ROWS):
        _block(hashes[first : first + BLOCK_ROWS], first, columns, scratch)
    return hashes


def _block(into: np.ndarray, first: int, columns: list[tuple[np.uint64, np.ndarray]], scratch: np.ndarray) -> None:
    folded, shifted = scratch[:, : len(into)]
    for factor, words in columns:
        part = words[first : first + len(into)]
        if part.dtype == np.float64:
            np.add(part, 0.0, out=shifted.view(np.float64))
            part = shifted
        part = part.view(np.uint64)
        np.right_shift(part, _32, out=folded)
        np.bitwise_xor(folded, part, out=folded)
        np.multiply(folded, factor, out=folded)
        np.add(into, folded, out=into)
    mix(into)


def _batches(table: pa.Table | pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    yield from [table] if isinstance(table, pa.RecordBatch) else table.to_batches()


def _sole(column: pa.DictionaryArray) -> str | None:
    """The text that all rows have; None when they differ, or one has none."""
    codes = column.indices.to_numpy(zero_copy_only=False)
    if column.null_count or not len(codes) or codes.min() != codes.max():
        return None
    text: str = column.dictionary[int(codes[0])].as_py()
    return text


@lru_cache(maxsize=1_024)
def _of_source(source: str) -> int:
    return _term("source", int(_texts(pa.array([source]))[0]))


def _term(column: str, word: int) -> int:
    return int(_K[column]) * (word ^ (word >> 32))


def _fold(words: np.ndarray) -> np.ndarray:
    return np.asarray(words ^ (words >> _32))


def _words(column: pa.Array) -> np.ndarray:
    """The words of a column, floats as they are where none is missing."""
    if pa.types.is_dictionary(column.type):
        return np.asarray(_texts(column.dictionary)[column.indices.to_numpy()])
    if pa.types.is_string(column.type):
        words = _texts(column)
    elif pa.types.is_floating(column.type):
        if column.null_count == 0:
            return np.asarray(column.to_numpy())
        words = (column.fill_null(0.0).to_numpy() + 0.0).view(np.uint64)
    else:
        whole = column.view(pa.int64())
        words = (whole.fill_null(0) if column.null_count else whole).to_numpy().view(np.uint64)
    return words if column.null_count == 0 else np.where(column.is_null().to_numpy(zero_copy_only=False), NULL, words)


def _texts(column: pa.Array) -> np.ndarray:
    """The word of each text; that of a missing one says nothing."""
    column = pa.concat_arrays([column])  # offsets from 0 on
    if len(column) == 0:
        return np.empty(0, np.uint64)
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    starts, lengths = ends[:-1], np.diff(ends)
    padded = (b"" if data is None else data.to_pybytes()) + bytes(8)
    view = np.ndarray((len(padded) - 7,), "<u8", padded, strides=(1,))
    hashed = np.where(lengths <= LONG_BYTES, lengths, 8).astype(np.uint64) * _T[0]
    for place in range(0, min(int(lengths.max()), LONG_BYTES), 8):
        rows = np.flatnonzero((lengths > place) & (lengths <= LONG_BYTES))
        words = view[starts[rows] + place]
        left = np.minimum(lengths[rows] - place, 8)
        words &= np.uint64(2**64 - 1) >> ((8 - left) * 8).astype(np.uint64)
        hashed[rows] += _T[place // 8 + 1] * _fold(words)
    for row in np.flatnonzero(lengths > LONG_BYTES).tolist():
        text = padded[starts[row] : starts[row] + lengths[row]]
        digest = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
        hashed[row : row + 1] += _T[1] * _fold(np.array([digest], np.uint64))
    return mix(hashed)
