"""Blocks are parsed by threads or, for what is large enough to pay for them, by processes: docs/design/loads.md.

Each thread of the pool has a process of its own, which it feeds and waits for, so that both look the same from
outside. A process that dies (out of memory, a fault in a library) is started again for the same block once; when it
dies again the block is at fault.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import msgspec
import pyarrow as pa

from tapehouse.bulk.formats.text import Parsed
from tapehouse.bulk.run import shared
from tapehouse.codec.content import Sums, sums_of
from tapehouse.errors import InvalidData, StoreError
from tapehouse.model import Kind

Parse = Callable[[Any], Parsed]
ATTEMPTS = 2
NICENESS = 5
"""Parsing lets the server that it runs beside, and the writer, go first."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A block and what is to be done with it; sums are made when the `source` of the rows is given.

    What is no text was decoded already, and is not carried to a process.
    """

    parse: Parse
    block: Any
    kind: Kind
    source: str | None = None
    is_text: bool = True


class Done(msgspec.Struct, frozen=True):
    """What became of a block, and the sums of its good rows."""

    parsed: Parsed
    sums: Sums


def run(task: Task) -> Done:
    """Parse the block, here and now."""
    parsed = task.parse(task.block)
    if task.source is None or parsed.table.num_rows == 0:
        return Done(parsed, {})
    own = "source" in parsed.table.column_names
    return Done(parsed, sums_of(task.kind, parsed.table, None if own else task.source))


class Workers:
    """A pool of threads, each with a process if `processes`; close it."""

    def __init__(self, count: int, *, processes: bool) -> None:
        self._pool = ThreadPoolExecutor(count, "tapehouse-parse")
        self._processes = processes
        self._mine = threading.local()
        self._all: list[_Process] = []
        self._closed = False
        self._lock = threading.Lock()

    def submit(self, task: Task) -> Future[Done]:
        """The task's outcome, some time; `InvalidData` when processes die over it."""
        return self._pool.submit(self._run if self._processes and task.is_text else run, task)

    def close(self) -> None:
        """Drop what waits, and end the processes."""
        with self._lock:
            self._closed = True
            for process in self._all:
                process.end()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, task: Task) -> Done:
        for attempt in range(ATTEMPTS):
            try:
                return self._process(fresh=attempt > 0).run(task)
            except (OSError, EOFError) as exc:
                died = exc
        raise InvalidData(f"the worker that parses died {ATTEMPTS} times over it ({died})") from died

    def _process(self, *, fresh: bool) -> _Process:
        """This thread's process; another one when the one before died."""
        held: _Process | None = getattr(self._mine, "process", None)
        if held is not None and not fresh:
            return held
        with self._lock:
            if self._closed:
                raise EOFError("the load has ended")
            if held is not None:
                held.end()
                self._all.remove(held)
            self._mine.process = started = _Process()
            self._all.append(started)
        return started


class _Process:
    """A process that parses, and the socket to it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        command = [sys.executable, "-c", _MAIN, str(theirs.fileno()), *sys.path]
        try:
            # In a session of its own: Ctrl-C is for the one who writes, and this one ends with its socket.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
            )
        except OSError as exc:
            self._socket.close()
            raise StoreError(f"no process to parse in can be started: {exc.strerror or exc}") from exc
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, task: Task) -> Done:
        """As `run`, in the process; `OSError` or `EOFError` when it dies."""
        send(self._socket, shared.put(task))
        answer, table = shared.take(receive(self._socket))
        if isinstance(answer, BaseException):
            raise answer
        fields, bad, sums = answer
        return Done(Parsed(table=pa.table({}) if table is None else table, bad=lambda: bad, **fields), sums)

    def end(self) -> None:
        """The process ends, whatever it does; idempotent."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


def send(to: socket.socket, descriptor: int) -> None:
    """Hand a descriptor over, and close it here."""
    try:
        socket.send_fds(to, [b"."], [descriptor])
    finally:
        os.close(descriptor)


def receive(of: socket.socket) -> int:
    """The next descriptor; `EOFError` when the other side is gone."""
    _, descriptors, _, _ = socket.recv_fds(of, 1, 1)
    if not descriptors:
        raise EOFError("the other side is gone")
    return descriptors[0]


_MAIN = "import sys; sys.path[:] = sys.argv[2:]; from tapehouse.bulk.run.workers import serve; serve(int(sys.argv[1]))"


def serve(descriptor: int) -> None:
    """The life of a process that parses: one block after the other, until the socket is closed."""
    os.nice(NICENESS)
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    with socket.socket(fileno=descriptor) as parent:
        while True:
            try:
                task, _ = shared.take(receive(parent))
            except (EOFError, ConnectionError):
                return
            send(parent, _answer(task))


def _answer(task: Task) -> int:
    try:
        done = run(task)
    except Exception as exc:  # noqa: BLE001 - it is raised again by the process that asked
        return shared.put(exc)
    parsed = done.parsed
    fields = {name: getattr(parsed, name) for name in ("rows", "bad_rows", "remarks", "source_bytes")}
    return shared.put((fields, parsed.bad(), done.sums), parsed.table if parsed.table.num_rows else None)
