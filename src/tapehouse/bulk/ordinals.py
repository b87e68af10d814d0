"""Which of several equal trades or quotes a row is, over all blocks of a file. No I/O.

Without the source's id, equal records of one time are told apart by their place among them, so that a second load of
the file finds the same rows. What was seen is remembered as hashes of the last `WINDOW_ROWS` rows, which is enough
unless equal records lie further apart than that, in a file that is not in the order of time.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tapehouse.model import Kind

WINDOW_ROWS = 4_000_000
VALUES = {Kind.TRADES: ("price", "size"), Kind.QUOTES: ("bid", "bid_size", "ask", "ask_size")}
_PRIMES = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)


class _Seen(NamedTuple):
    """A block that was numbered: its distinct hashes, sorted, how often each occurred until then, times, symbols."""

    hashes: np.ndarray
    counts: np.ndarray
    first: int
    last: int
    symbols: np.ndarray


class Ordinals:
    """Numbers the records of one file, block by block in order."""

    def __init__(self, kind: Kind, window_rows: int = WINDOW_ROWS) -> None:
        self._kind, self._window_rows = kind, window_rows
        self._seen: deque[_Seen] = deque()
        self._codes: dict[str, int] = {}
        self._forgotten = np.empty(0, np.int64)
        self.used = False
        """Whether any row had no id, so that its number depends on the rows before."""
        self.uncertain = 0
        """Rows for which an equal one may have been too far back to be remembered."""

    def add(self, table: pa.Table) -> pa.Table:
        """The table with the column `ordinal`, unless it has one or every row has an id."""
        if self._kind not in VALUES or table.num_rows == 0 or "ordinal" in table.column_names:
            return table
        ordinals = np.zeros(table.num_rows, np.int32)
        rows = np.arange(table.num_rows)
        if "id" in table.column_names:
            rows = np.flatnonzero(pc.is_null(table.column("id")).to_numpy())
        if len(rows) == 0:
            return table
        self.used = True
        symbols, times = self._symbols(table)[rows], table.column("timestamp").to_numpy().view(np.int64)[rows]
        values = [table.column(name).to_numpy()[rows] for name in VALUES[self._kind]]
        ordinals[rows] = self._number(symbols, times, _hash(symbols, times, values))
        return table.append_column("ordinal", pa.array(ordinals))

    def _symbols(self, table: pa.Table) -> np.ndarray:
        """A number for each row's symbol, the same in all blocks."""
        chunk = table.column("symbol").combine_chunks()
        chunk = chunk.chunk(0) if isinstance(chunk, pa.ChunkedArray) else chunk
        names = chunk.dictionary.to_pylist()
        codes = np.array([self._codes.setdefault(name, len(self._codes)) for name in names], np.int64)
        return np.asarray(codes[chunk.indices.to_numpy()])

    def _number(self, symbols: np.ndarray, times: np.ndarray, hashes: np.ndarray) -> np.ndarray:
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        lengths = np.diff(np.append(starts, len(ordered)))
        before = self._counted(ordered[starts], symbols[order[starts]], times[order[starts]])
        ordinals = np.empty(len(hashes), np.int64)
        ordinals[order] = np.arange(len(hashes)) - np.repeat(starts, lengths) + np.repeat(before, lengths)
        self._remember(_Seen(ordered[starts], before + lengths, times.min(), times.max(), np.unique(symbols)))
        return ordinals

    def _counted(self, hashes: np.ndarray, symbols: np.ndarray, times: np.ndarray) -> np.ndarray:
        """How often each of the hashes occurred in earlier blocks; the newest block that has it knows."""
        counts = np.zeros(len(hashes), np.int64)
        for seen in self._seen:
            near = np.flatnonzero((times >= seen.first) & (times <= seen.last))
            near = near[np.isin(symbols[near], seen.symbols)]
            if len(near):
                place = np.minimum(np.searchsorted(seen.hashes, hashes[near]), len(seen.hashes) - 1)
                found = seen.hashes[place] == hashes[near]
                counts[near[found]] = seen.counts[place[found]]
        if len(self._forgotten):
            limits = np.append(self._forgotten, np.iinfo(np.int64).min)[np.minimum(symbols, len(self._forgotten))]
            self.uncertain += int((times <= limits).sum())
        return counts

    def _remember(self, seen: _Seen) -> None:
        self._seen.append(seen)
        while len(self._seen) > 1 and sum(len(each.hashes) for each in self._seen) > self._window_rows:
            old = self._seen.popleft()
            forgotten = np.full(len(self._codes), np.iinfo(np.int64).min)
            forgotten[: len(self._forgotten)] = self._forgotten
            forgotten[old.symbols] = np.maximum(forgotten[old.symbols], old.last)
            self._forgotten = forgotten


def _hash(symbols: np.ndarray, times: np.ndarray, values: list[np.ndarray]) -> np.ndarray:
    """64 bits of each row's symbol, time and values; 0.0 and -0.0 are the same."""
    hashed = symbols.astype(np.uint64) * _PRIMES[0]
    for column in (times, *((value + 0.0).view(np.int64) for value in values)):
        hashed = (hashed ^ column.view(np.uint64)) * _PRIMES[1]
        hashed ^= hashed >> np.uint64(29)
        hashed = hashed * _PRIMES[2] ^ (hashed >> np.uint64(32))
    return np.asarray(hashed)
