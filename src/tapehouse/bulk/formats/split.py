"""Text in blocks of whole rows, and where the rows of a block are. No I/O.

A newline inside quotes does not end a row. A quote that is never closed would swallow the rest of a file: when no row
ends within `MAX_ROW_BYTES`, the line with that quote is a block of its own, and reading goes on after it. Of a line
that is itself longer, the beginning is a block of its own, and the rest is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec
import numpy as np

from tapehouse.errors import UnreadableFile

MAX_ROW_BYTES = 1 << 20
SHOWN_BYTES = 1_000
"""So much of a line that is too long is kept."""
NEWLINE, RETURN, QUOTE = b"\n", b"\r", b'"'


class Block(msgspec.Struct, frozen=True):
    """Whole rows of a text file. `line` is the number of the first one's line, from 1.

    `source_bytes` is how far the file was read, as it is on disk, when the block was complete. A block that is `cut`
    is the beginning of a row whose rest could not be read, one that is `long` that of a row beyond all measure.
    """

    data: bytes
    line: int
    source_bytes: int = 0
    cut: bool = False
    long: bool = False


class Rows(msgspec.Struct, frozen=True):
    """Where the rows of a block are: `data[starts[i]:ends[i]]` is row i, on line `lines[i]` of the file."""

    starts: np.ndarray
    ends: np.ndarray
    lines: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, rows: np.ndarray) -> Rows:
        return Rows(self.starts[rows], self.ends[rows], self.lines[rows])


def split(
    pieces: Iterable[tuple[bytes, int]],
    block_bytes: int,
    line: int = 1,
    *,
    quotes: bool = True,
    is_cut: Callable[[], bool] = bool,
) -> Iterator[Block]:
    """Pieces of a text (with how far the file was read) as blocks of about `block_bytes`, in order, nothing left out.

    A piece ends anywhere, also inside a row; lines end with LF or CR LF, and not inside `quotes`. When the pieces end
    with `UnreadableFile`, what came before is still given, and then the error raised. `is_cut` says at the end
    whether a last row without a newline is only the beginning of one.
    """
    splitter = _Splitter(line, quotes)
    failure: UnreadableFile | None = None
    pieces = iter(pieces)
    while True:
        try:
            piece, done = next(pieces)
        except StopIteration:
            break
        except UnreadableFile as exc:
            failure = exc
            break
        splitter.add(piece, done)
        if splitter.size >= block_bytes:
            yield from splitter.whole_rows()
    yield from splitter.rest(cut=failure is not None or is_cut())
    if failure is not None:
        raise failure


class _Splitter:
    """What was read of a text and not yet given as a block."""

    def __init__(self, line: int, quotes: bool) -> None:
        self._held: list[bytes] = []
        self._line, self._done, self._quotes = line, 0, quotes
        self._skipping = False
        self.size = 0

    def add(self, piece: bytes, done: int) -> None:
        self._done = done
        if self._skipping:
            end = piece.find(NEWLINE) + 1
            self._skipping = end == 0
            self._line += end > 0
            piece = piece[end:] if end else b""
        self._held.append(piece)
        self.size += len(piece)

    def whole_rows(self) -> Iterator[Block]:
        """As many whole rows as there are; when the first row ends nowhere in sight, its first line by itself."""
        if self._held:
            yield from self._up_to_the_last()
        while end := self._end():
            yield self._block(end)
        if self.size > MAX_ROW_BYTES:
            yield self._beginning()

    def _up_to_the_last(self) -> Iterator[Block]:
        """As a rule the last row ends in the last piece; then nothing but what comes after it is copied twice."""
        *before, last = self._held
        quotes = sum(count_of(piece, QUOTE) for piece in before) if self._quotes else 0
        if end := self._end_of_rows(last, quotes):
            self._held, self.size = [last[end:]], len(last) - end
            yield self._numbered(b"".join([*before, memoryview(last)[:end]]))

    def _end_of_rows(self, data: bytes, quotes: int = 0) -> int:
        return end_of_rows(data, quotes) if self._quotes else data.rfind(NEWLINE) + 1

    def _end(self) -> int:
        data = self._joined()
        end = self._end_of_rows(data)
        if end == 0 and len(data) > MAX_ROW_BYTES:
            end = data.find(NEWLINE) + 1
        return end

    def _beginning(self) -> Block:
        """The beginning of a line that is longer than any row; what follows up to its end is skipped."""
        data = self._joined()
        self._held, self.size, self._skipping = [], 0, True
        return Block(data[:SHOWN_BYTES], self._line, self._done, long=True)

    def rest(self, *, cut: bool) -> Iterator[Block]:
        """The end of a file, whose last row needs no newline unless the file was cut."""
        yield from self.whole_rows()
        while data := self._joined():
            closed = cut or not self._quotes or count_of(data, QUOTE) % 2 == 0
            yield self._block(len(data) if closed else (data.find(NEWLINE) + 1 or len(data)), cut=cut)

    def _joined(self) -> bytes:
        if len(self._held) != 1:
            self._held = [b"".join(self._held)]
        return self._held[0]

    def _block(self, end: int, *, cut: bool = False) -> Block:
        data = self._joined()
        self._held, self.size = [data[end:]], len(data) - end
        return self._numbered(data[:end], cut=cut)

    def _numbered(self, data: bytes, *, cut: bool = False) -> Block:
        block = Block(data, self._line, self._done, cut)
        self._line += count_of(data, NEWLINE)
        return block


def count_of(data: bytes, sign: bytes, start: int = 0, end: int | None = None) -> int:
    """How often a byte is in `data[start:end]`: several times as fast as `bytes.count`, and without the GIL."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8)[start:end] == sign[0]))


def end_of_rows(data: bytes, quotes: int = 0) -> int:
    """Where the last whole row ends: after the last newline that has an even number of quotes before it; else 0.

    So many `quotes` came before the data.
    """
    end = data.rfind(NEWLINE)
    quotes += count_of(data, QUOTE, 0, end) if end >= 0 else 0
    while end >= 0 and quotes % 2:
        quote = data.rfind(QUOTE, 0, end)
        end = data.rfind(NEWLINE, 0, quote) if quote >= 0 else -1
        quotes -= 1 + (count_of(data, QUOTE, max(end, 0), quote) if end >= 0 else 0)
    return end + 1


def rows_of(block: Block) -> Rows:
    """Every row of the block that is not blank; a row may have several lines when these are in quotes."""
    data = np.frombuffer(block.data, np.uint8)
    newlines = np.flatnonzero(data == NEWLINE[0])
    inside = np.zeros(len(newlines), bool)
    if QUOTE in block.data:
        quotes = np.flatnonzero(data == QUOTE[0])
        inside = np.searchsorted(quotes, newlines) % 2 == 1
    return _rows_between(data, newlines, newlines[~inside], block.line)


def lines_of(block: Block, start: int, end: int, line: int) -> Rows:
    """The lines of a part of the block, whatever its quotes say."""
    data = np.frombuffer(block.data, np.uint8)[start:end]
    newlines = np.flatnonzero(data == NEWLINE[0])
    rows = _rows_between(data, newlines, newlines, line)
    return Rows(rows.starts + start, rows.ends + start, rows.lines)


def lines_backwards(data: bytes) -> Iterator[bytes]:
    """The lines of a text, the last one first, without their ends."""
    end = len(data)
    while end >= 0:
        start = data.rfind(NEWLINE, 0, end)
        yield data[start + 1 : end].removesuffix(RETURN)
        end = start


def _rows_between(data: np.ndarray, newlines: np.ndarray, breaks: np.ndarray, line: int) -> Rows:
    if len(data) == 0:
        return Rows(*(np.empty(0, np.int64) for _ in Rows.__struct_fields__))
    starts = np.concatenate([[0], breaks + 1])
    ends = np.concatenate([breaks, [len(data)]])
    lines = line + np.searchsorted(newlines, starts)
    for sign in (NEWLINE, RETURN):  # a quote that is never closed takes the last newline along
        ends = np.where((ends > starts) & (data[np.maximum(ends - 1, 0)] == sign[0]), ends - 1, ends)
    filled = ends > starts
    return Rows(starts[filled], ends[filled], lines[filled])


def fields_of(block: Block, rows: Rows, delimiter: str) -> np.ndarray:
    """How many fields each row has; a delimiter inside quotes does not count."""
    data = np.frombuffer(block.data, np.uint8)
    places = np.flatnonzero(data == ord(delimiter))
    before_start, before_end = np.searchsorted(places, rows.starts), np.searchsorted(places, rows.ends)
    if QUOTE not in block.data:
        return np.asarray(before_end - before_start + 1)
    quotes = np.flatnonzero(data == QUOTE[0])
    opened = np.searchsorted(quotes, rows.starts)
    row = np.clip(np.searchsorted(rows.starts, places, side="right") - 1, 0, None)
    counts = (np.searchsorted(quotes, places) - opened[row]) % 2 == 0
    inside = (places >= rows.starts[row]) & (places < rows.ends[row])
    return np.asarray(np.bincount(row[counts & inside], minlength=len(rows)) + 1)
