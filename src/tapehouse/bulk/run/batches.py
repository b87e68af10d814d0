"""What goes into one commit: pieces of files with rows of one kind and interval, as many as are written fastest."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import pyarrow as pa

from tapehouse.bulk.account import FileLoad, Piece
from tapehouse.model import NAME, Interval, Kind

SIZES = (245_760, 491_520, 983_040, 1_966_080, 3_932_160)
"""Rows of a commit: multiples of DuckDB's row groups (122,880)."""
FIRST_SIZE = 2
BATCH_BYTES = 256 << 20
BETTER = 1.05
"""A size is changed for one that is faster by this factor, as measurements scatter."""


class BatchSize:
    """How many rows to write at once: neighbouring sizes are tried, and the fastest is kept. No clock of its own."""

    def __init__(self, fixed: int | None = None, limit_bytes: int = BATCH_BYTES) -> None:
        self._fixed, self._limit_bytes = fixed, limit_bytes
        self._at = FIRST_SIZE
        self._rates: dict[int, float] = {}
        self._row_bytes = 0.0

    @property
    def rows(self) -> int:
        """So many rows make a batch."""
        return SIZES[self._at] if self._fixed is None else max(1, self._fixed)

    def note(self, rows: int, size_bytes: int, seconds: float) -> None:
        """A batch took so long, from the end of the one before to its own; small ones, as at an end, do not count."""
        if self._fixed is not None or rows < SIZES[self._at] or seconds <= 0:
            return
        rate = rows / seconds
        self._row_bytes = size_bytes / rows
        self._rates[self._at] = (self._rates.get(self._at, rate) + rate) / 2
        self._at = self._next()

    def _next(self) -> int:
        """A neighbour that is not known yet, else the fastest one around."""
        around = [at for at in (self._at + 1, self._at - 1) if 0 <= at < len(SIZES) and self._fits(at)]
        if not self._fits(self._at):
            return max(self._at - 1, 0)
        for at in around:
            if at not in self._rates:
                return at
        best = max([self._at, *around], key=lambda at: self._rates[at])
        return best if self._rates[best] > self._rates[self._at] * BETTER else self._at

    def _fits(self, at: int) -> bool:
        return SIZES[at] * self._row_bytes <= self._limit_bytes


class Gathering:
    """Pieces that wait to be written."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.rows = self.bytes = 0
        self._last: FileLoad | None = None

    def add(self, piece: Piece) -> None:
        self.pieces.append(piece)
        if piece.table is not None:
            self._last = piece.file
            self.rows += piece.table.num_rows
            self.bytes += piece.table.nbytes

    def drop(self, file: FileLoad) -> None:
        """Forget the rows of a file that is given up."""
        kept = [piece for piece in self.pieces if piece.file is not file]
        self.pieces, self.rows, self.bytes, self._last = [], 0, 0, None
        for piece in kept:
            self.add(piece)

    def takes(self, file: FileLoad, *, together: bool) -> bool:
        """Whether that file's rows can be in one commit with what waits."""
        last = self._last
        return last is None or last is file or (together and series_of(last) == series_of(file))

    def by_file(self) -> Iterator[tuple[FileLoad, pa.Table]]:
        """Each file that has rows with all of them."""
        filled = (piece for piece in self.pieces if piece.table is not None)
        for _, pieces in groupby(filled, key=lambda piece: piece.file.number):
            listed = list(pieces)
            tables = [piece.table for piece in listed]
            yield listed[0].file, _joined(tables)


def _joined(tables: list[pa.Table]) -> pa.Table:
    if len(tables) == 1:
        return tables[0]
    return pa.concat_tables(tables, promote_options="default").unify_dictionaries()


def series_of(file: FileLoad) -> tuple[Kind, Interval | None]:
    return file.kind, file.file.interval


def with_source(table: pa.Table, source: str) -> pa.Table:
    """The table with a column that says where its rows are from, its own if it has one."""
    if "source" in table.column_names:
        return table
    codes = pa.nulls(table.num_rows, pa.int32()).fill_null(0)
    return table.append_column(pa.field("source", NAME), pa.DictionaryArray.from_arrays(codes, pa.array([source])))
