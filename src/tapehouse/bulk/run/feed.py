"""The reading thread: the blocks of all files in order, each to a worker as soon as there is room for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any

import msgspec
import pyarrow as pa

from tapehouse.bulk.account import FileLoad
from tapehouse.bulk.base import LoadOptions, Problem
from tapehouse.bulk.formats.blocks import blocks_of
from tapehouse.bulk.run.workers import Done, Parse, Task, Workers
from tapehouse.bulk.validate import Judge
from tapehouse.codec.content import Sums, add_to
from tapehouse.errors import InvalidData
from tapehouse.model import Instrument

POLL_S = 0.1
ROOM_BYTES = 128 << 20
"""What may be anywhere between being read and being taken in: more than a batch, so that workers go on meanwhile."""


class Fed(msgspec.Struct, frozen=True, kw_only=True):
    """A block of a file on its way, or the file's end. `blocks` counts it; `place` is its first line or row."""

    file: FileLoad
    block: Future[Done] | None = None
    blocks: int = 0
    place: int = 0
    replay: bool = False
    bytes: int = 0
    problem: Problem | None = None


class Room:
    """Bytes that may be taken and are given back; one block always fits."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used = limit, 0
        self._changed = threading.Condition()

    def take(self, size: int, stop: threading.Event) -> bool:
        """Wait until there is room; False when the load stops instead."""
        with self._changed:
            while self._used and self._used + size > self._limit:
                if stop.is_set():
                    return False
                self._changed.wait(POLL_S)
            self._used += size
        return not stop.is_set()

    def give_back(self, size: int) -> None:
        with self._changed:
            self._used -= size
            self._changed.notify()


class Feed:
    """Iterate over what comes in, from one thread; what a block took is given back when the next one is asked for."""

    def __init__(
        self,
        files: Sequence[FileLoad],
        workers: Workers,
        options: LoadOptions,
        instruments: Sequence[Instrument],
        *,
        sums: bool,
        room_bytes: int = ROOM_BYTES,
    ) -> None:
        self._files, self._workers, self._options, self._instruments = files, workers, options, instruments
        self._sums = sums
        self._room = Room(room_bytes)
        self._queue: SimpleQueue[Fed | None] = SimpleQueue()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="tapehouse-read", daemon=True)
        self._thread.start()

    def taken(self, asked_to_stop: Callable[[], bool]) -> Iterator[Fed]:
        """In order, until all is read or the load is asked to stop."""
        while not asked_to_stop():
            try:
                fed = self._queue.get(timeout=POLL_S)
            except Empty:
                continue
            if fed is None:
                if self._failure is not None:
                    raise self._failure
                return
            try:
                yield fed
            finally:
                self._room.give_back(fed.bytes)

    def close(self) -> None:
        """Read no more; idempotent."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for file in self._files:
                if not file.ended and not self._stop.is_set():
                    self._queue.put(Fed(file=file, problem=self._read(file)))
        except BaseException as exc:  # noqa: BLE001 - it is raised again by the thread that takes
            self._failure = exc
        finally:
            self._queue.put(None)

    def _read(self, file: FileLoad) -> Problem | None:
        """Why the file cannot be read to its end, if so."""
        source = file.file.source if self._sums else None
        try:
            settled = self._settled(file)
            for number, (parse, block) in enumerate(self._blocks(file), 1):
                if number <= settled and not file.replays:
                    continue
                size = weight_of(block, self._options.block_bytes)
                if not self._room.take(size, self._stop) or file.abandoned:
                    break
                replay = number <= settled
                task = Task(
                    parse=parse,
                    block=block,
                    kind=file.kind,
                    source=None if replay else source,
                    is_text=file.file.format.is_text,
                )
                done, place = self._workers.submit(task), place_of(block, number)
                self._queue.put(Fed(file=file, block=done, blocks=number, place=place, replay=replay, bytes=size))
        except InvalidData as exc:
            return Problem(exc.code, exc.message)
        return None

    def _blocks(self, file: FileLoad) -> Iterator[tuple[Parse, Any]]:
        return blocks_of(file.file, Judge(file.file, self._instruments), self._options)

    def _settled(self, file: FileLoad) -> int:
        """How many blocks an earlier run settled; none when the file has other ones now."""
        if file.blocks:
            last = next(islice(self._blocks(file), file.blocks - 1, None), None)
            if last is None or place_of(last[1], file.blocks) != file.place:
                file.restart("it is cut into other blocks than before")
            elif file.lost_bad:
                file.restart("bad rows that were found in it before are not in quarantine any more")
            elif file.doubted and not self._as_settled(file):
                file.restart("it was written since, and its rows are not known to be those that were loaded")
        return file.blocks

    def _as_settled(self, file: FileLoad) -> bool:
        """Whether the blocks that an earlier run settled have the same rows still."""
        read, bad, sums = 0, 0, Sums()
        for parse, block in islice(self._blocks(file), file.blocks):
            task = Task(
                parse=parse, block=block, kind=file.kind, source=file.file.source, is_text=file.file.format.is_text
            )
            size = weight_of(block, self._options.block_bytes)
            if not self._room.take(size, self._stop):
                return True  # it is not read on
            try:
                done = self._workers.submit(task).result()
            except (pa.ArrowException, InvalidData):
                return False
            finally:
                self._room.give_back(size)
            read, bad = read + done.parsed.rows, bad + done.parsed.bad_rows
            add_to(sums, done.sums)
        return (read, bad, sums) == (file.settled.read, file.settled.quarantined, file.sums)


def place_of(block: Any, number: int) -> int:
    """The line or row of the file at which a block begins."""
    return int(getattr(block, "line", getattr(block, "row", number)))


def weight_of(block: Any, usual: int) -> int:
    """About how many bytes of memory a block takes."""
    if (data := getattr(block, "data", None)) is not None:
        return len(data)
    batch = getattr(block, "batch", None)
    return usual if batch is None else int(batch.nbytes)
