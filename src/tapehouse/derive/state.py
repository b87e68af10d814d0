"""What `derive` keeps between two runs, and the watermark: up to when all trades are thought to have come. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import pyarrow as pa

from tapehouse.derive.book import EMPTY, Book, Cells
from tapehouse.errors import InvalidData
from tapehouse.model import Interval

VERSION = 1


class Watermark:
    """The newest time of any trade, going on with the clock while none newer comes, less the grace; never back.

    All in nanoseconds.
    """

    def __init__(self, grace_ns: int) -> None:
        self._grace_ns = grace_ns
        self._newest, self._came, self._mark = EMPTY, 0, EMPTY

    def note(self, newest: int, came: int) -> None:
        """Trades of up to that time came at that time."""
        if newest > self._newest:
            self._newest, self._came = newest, came

    def at(self, now: int) -> int:
        """Up to when trades are not waited for any more, as of now."""
        if self._newest != EMPTY:
            self._mark = max(self._mark, self._newest + max(0, now - self._came) - self._grace_ns)
        return self._mark

    def state(self) -> tuple[int, int, int]:
        """What is to be kept of it."""
        return self._newest, self._came, self._mark

    def restore(self, state: tuple[int, int, int]) -> None:
        """Go on with what was kept."""
        self._newest, self._came, self._mark = state


Late = tuple[str, int, int, int, int]
"""Interval, symbol, stamp, and the edges of the bucket of a bar that a trade came too late for."""


class State(msgspec.Struct, array_like=True):
    """All that is kept but the books: `late` with the entries of the log after which their bars are made again."""

    version: int
    names: list[str]
    watermark: tuple[int, int, int]
    late: list[tuple[Late, int]]
    revisions: list[tuple[tuple[str, int, int], int]]
    books: dict[str, dict[str, tuple[str, list[int], bytes]]]


def encode_state(
    names: list[str],
    watermark: tuple[int, int, int],
    books: Mapping[Interval, Book],
    late: Mapping[Late, int],
    revisions: Mapping[tuple[str, int, int], int],
) -> bytes:
    """All of it, compressed."""
    held = {str(interval): _encode_cells(book.cells, len(names)) for interval, book in books.items()}
    packed = msgspec.msgpack.encode(State(VERSION, names, watermark, list(late.items()), list(revisions.items()), held))
    compressed: bytes = pa.compress(packed, codec="zstd", asbytes=True)
    return len(packed).to_bytes(8, "big") + compressed


def decode_state(data: bytes, books: Mapping[Interval, Book]) -> State:
    """Put the books back as they were; the rest."""
    try:
        raw = pa.decompress(data[8:], int.from_bytes(data[:8], "big"), codec="zstd", asbytes=True)
        state = msgspec.msgpack.decode(raw, type=State)
    except (pa.ArrowException, msgspec.MsgspecError, OSError) as exc:
        raise InvalidData(f"the state of derive cannot be read: {exc}") from exc
    for interval, book in books.items():
        if str(interval) in state.books:
            book.cells = _decode_cells(state.books[str(interval)])
    return state


def _encode_cells(cells: Cells, symbols: int) -> dict[str, tuple[str, list[int], bytes]]:
    found = {}
    for name in cells.__struct_fields__:
        used = np.ascontiguousarray(getattr(cells, name)[..., : max(1, symbols)])
        found[name] = used.dtype.str, list(used.shape), used.tobytes()
    return found


def _decode_cells(state: dict[str, tuple[str, list[int], bytes]]) -> Cells:
    arrays = {name: np.frombuffer(data, dtype).reshape(shape).copy() for name, (dtype, shape, data) in state.items()}
    return Cells(**arrays)
