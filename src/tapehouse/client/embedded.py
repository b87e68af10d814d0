"""What a client is pointed at, and the store that it opens in this process when there is no server to ask.

A folder has one owner, and within a process that owner is shared: two clients of one folder (a notebook's cell that ran
twice) hold the same store, which closes with the last of them.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec
import pyarrow as pa

from tapehouse.client.arrow import Arriving
from tapehouse.client.http import Server, Shell, check_url
from tapehouse.client.reads import Commits, Instruments, Read, SeriesList, read_of
from tapehouse.client.wire import Operation
from tapehouse.errors import InvalidRequest, NotFound, NotSupported, StoreLocked, TapehouseError
from tapehouse.export.base import Existing, ExportOptions, Manifest, OnProgress
from tapehouse.model import Commit, Instrument
from tapehouse.query.base import History, Request
from tapehouse.store.base import Capability, Closes, KeepsInstruments, Series, Store
from tapehouse.store.owner import Owner, find_owner

if TYPE_CHECKING:
    from tapehouse.bulk.base import Certificate, LoadOptions, LoadReport
    from tapehouse.bulk.checks.base import Assessment

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8720"
EMBEDDED = "duckdb:///"
OWNER_URL = "http://localhost"
_PATIENCE_S = 2.0
"""A load that begins or ends owns the folder for a moment without serving it."""


class _Opened(msgspec.Struct):
    store: Store
    history: History
    users: int = 0


_opened: dict[str, _Opened] = {}
_lock = threading.Lock()
_abandoned: deque[Local] = deque()
"""What was collected while somebody had the lock, maybe the same thread."""


@contextmanager
def _exclusively() -> Iterator[None]:
    try:
        with _lock:
            yield
    finally:
        _let_go()


def _let_go() -> None:
    """Close what was abandoned, unless somebody has the lock: they do it after."""
    while _abandoned and _lock.acquire(blocking=False):
        try:
            if _abandoned:
                _abandoned.popleft().release()
        finally:
            _lock.release()


def reach(
    where: str | os.PathLike[str] | None, *, key: str | None = None, timeout_s: float = 60.0, create: bool = False
) -> Server | Local:
    """The server to talk to, or the store, opened.

    None is TAPEHOUSE_URL, or the default address; the key, unless given, is TAPEHOUSE_KEY. A folder is reached through
    the process that owns it, and opened when nobody does. Raises `NotFound` for a folder that is not there, unless it
    is to be created, and `StoreLocked` when its owner does not serve it.
    """
    target = os.fspath(where if where is not None else os.environ.get("TAPEHOUSE_URL") or DEFAULT_URL)
    if target.startswith(("http://", "https://")):
        check_url(target)
        return Server(url=target, key=key or os.environ.get("TAPEHOUSE_KEY"), timeout_s=timeout_s)
    if "://" in target and not target.startswith("duckdb://"):
        return Local(target, shared=False)
    return _reach_folder(folder_of(target), timeout_s=timeout_s, create=create)


def folder_of(target: str) -> Path:
    """The folder that a path or an embedded store's URL names, absolute."""
    path = target
    if target.startswith("duckdb://"):
        if not target.startswith(EMBEDDED):
            raise InvalidRequest(f"{target!r} has two slashes; write {EMBEDDED}data for the folder data")
        path = target.removeprefix(EMBEDDED)
    return Path(path).expanduser().absolute()


def _reach_folder(folder: Path, *, timeout_s: float, create: bool) -> Server | Local:
    if not folder.exists() and not create:
        missing = NotFound(f"there is no folder {folder}", folder=str(folder))
        missing.add_note("create=True makes one; the address of a server starts with http://")
        raise missing
    if not create and folder.is_dir() and not _has_store(folder) and any(folder.iterdir()):
        missing = NotFound(f"the folder {folder} holds something, but no data of Tapehouse", folder=str(folder))
        missing.add_note("create=True, or `tapehouse load`, makes a store of it")
        raise missing
    url = f"{EMBEDDED}{folder.resolve()}"
    with _exclusively():
        known = url in _opened
    if known:
        return Local(url, shared=True)
    give_up = time.monotonic() + _PATIENCE_S
    while True:
        owner = find_owner(folder)
        try:
            return Local(url, shared=True) if owner is None else _through(owner, folder, timeout_s)
        except StoreLocked:
            # Somebody took the folder between the look and the opening, or its owner does not serve it yet or no more.
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)


def _has_store(folder: Path) -> bool:
    """Whether there is a store, be it a damaged one, which opening it says."""
    from tapehouse.store.folder import DATABASE, FORMAT_FILE  # which brings the database with it

    return any((folder / name).exists() for name in (FORMAT_FILE, DATABASE))


def _through(owner: Owner, folder: Path, timeout_s: float) -> Server:
    if not owner.socket or not Path(owner.socket).exists():
        raise StoreLocked(
            f"{folder} is in use by {owner}, which does not serve it; close it there, or run `tapehouse serve` and "
            "let all clients go through that",
            folder=str(folder),
            owner=str(owner),
        )
    return Server(url=OWNER_URL, socket=owner.socket, timeout_s=timeout_s)


class Local:
    """One client's hold on an open store."""

    def __init__(self, url: str, *, shared: bool) -> None:
        """`url` names the store. A shared one is known to the process by it, so its path has to be absolute."""
        self._name = url if shared else f"{url}#{id(self)}"
        with _exclusively():
            opened = _opened.get(self._name) or _opened.setdefault(self._name, _open(url))
            opened.users += 1
        self._held: _Opened | None = opened

    @property
    def store(self) -> Store:
        return self._hold().store

    @property
    def history(self) -> History:
        return self._hold().history

    @property
    def instruments(self) -> KeepsInstruments:
        """The store as a keeper of instruments; raises `NotSupported` when it is none."""
        if Capability.INSTRUMENTS not in self.store.capabilities:
            raise NotSupported("this store keeps no instruments")
        return cast(KeepsInstruments, self.store)

    def run(self, operation: Operation[T]) -> T:
        return operation.locally(self)

    def load(self, paths: Sequence[str], options: LoadOptions, validate: str, **how: Any) -> LoadReport:
        """Load files; `how` is that of `bulk.checked.load_checked`."""
        from tapehouse.bulk.checked import load_checked
        from tapehouse.bulk.checks.base import Checks
        from tapehouse.client.jobs.loading import validate_of

        folder: Path = getattr(self.store, "folder", Path())
        how = {"quarantine_dir": folder / "quarantine"} | {name: each for name, each in how.items() if each is not None}
        return load_checked(paths, self.store, options, Checks(validate=validate_of(validate)), **how)

    def certify(self, batch: str) -> Certificate:
        """Compare what a batch's load read with what the store has."""
        from tapehouse.bulk.certificate import certify

        return certify(self.store, batch)

    def assess(self, asked: Assessment, stop: threading.Event | None = None) -> None:
        """Look at what is stored anew."""
        from tapehouse.bulk.checked import check_stored

        check_stored(self.store, asked, stop=stop)

    @contextmanager
    def batches(self, operation: Read) -> Iterator[Arriving[Iterator[pa.RecordBatch]]]:
        """The rows, read as they are taken."""
        with closing(operation.answer(self)) as answer:
            yield Arriving(answer.schema, answer.commit, dict(answer.made_from), iter(answer))

    def close(self) -> None:
        """Let go; the last one closes the store. Idempotent."""
        with _exclusively():
            self.release()

    def abandon(self) -> None:
        """The same for a client that is collected. The collector runs in the midst of anything, also of an opening in
        this thread, and so must not wait for it."""
        _abandoned.append(self)
        _let_go()

    def release(self) -> None:
        """What closing does; the caller has the lock."""
        held, self._held = self._held, None
        if held is None:
            return
        held.users -= 1
        if held.users == 0:
            del _opened[self._name]
            cast(Closes, held.store).close()

    def _hold(self) -> _Opened:
        if self._held is None:
            raise TapehouseError("this client is closed")
        return self._held


class Held:
    """What an export reads from (`export.base.Source`): a store in this process, or a server."""

    def __init__(self, backend: Shell | Local) -> None:
        self._backend = backend

    def rows(self, request: Request) -> AbstractContextManager[Arriving[Iterator[pa.RecordBatch]]]:
        return self._backend.batches(read_of(request))

    def series(self) -> list[Series]:
        return self._backend.run(SeriesList())

    def commits(self, *, after: int, limit: int) -> list[Commit]:
        return self._backend.run(Commits(after=after, limit=limit))

    def instruments(self) -> list[Instrument]:
        return self._backend.run(Instruments())


def export(
    backend: Shell | Local,
    folder: str | os.PathLike[str],
    options: ExportOptions,
    *,
    existing: str = "refuse",
    threads: int | None = None,
    progress: OnProgress | None = None,
) -> Manifest:
    """See `Client.export`."""
    from tapehouse.export.run import export

    try:
        how = Existing(existing)
    except ValueError:
        raise InvalidRequest(f"existing is one of {', '.join(Existing)}, not {existing!r}") from None
    return export(Held(backend), os.fspath(folder), options, existing=how, threads=threads, progress=progress)


class AsyncLocal:
    """The same for an event loop: what may block runs in a thread."""

    def __init__(self, local: Local) -> None:
        self._local = local

    async def run(self, operation: Operation[T]) -> T:
        return await asyncio.to_thread(self._local.run, operation)

    async def load(self, paths: Sequence[str], options: LoadOptions, validate: str, **how: Any) -> LoadReport:
        """As `Local.load`; when the task is cancelled, the load stops after the write that runs."""
        stop = threading.Event()
        running = asyncio.ensure_future(asyncio.to_thread(self._local.load, paths, options, validate, stop=stop, **how))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait({running})
            raise

    async def certify(self, batch: str) -> Certificate:
        return await asyncio.to_thread(self._local.certify, batch)

    async def assess(self, asked: Assessment) -> None:
        """As `Local.assess`; when the task is cancelled, it stops within a batch of rows."""
        stop = threading.Event()
        running = asyncio.ensure_future(asyncio.to_thread(self._local.assess, asked, stop))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait({running})
            raise

    @asynccontextmanager
    async def batches(self, operation: Read) -> AsyncIterator[Arriving[AsyncGenerator[pa.RecordBatch, None]]]:
        """The rows, read as they are taken."""
        answer = await asyncio.to_thread(operation.answer, self._local)
        try:
            async with aclosing(_in_thread(iter(answer))) as batches:
                yield Arriving(answer.schema, answer.commit, dict(answer.made_from), batches)
        finally:
            await asyncio.to_thread(answer.close)

    def waiting(self) -> Local:
        """The same store, for a thread that waits."""
        return self._local

    async def close(self) -> None:
        await asyncio.to_thread(self._local.close)


async def _in_thread(batches: Iterator[pa.RecordBatch]) -> AsyncGenerator[pa.RecordBatch, None]:
    while (batch := await asyncio.to_thread(next, batches, None)) is not None:
        yield batch


def files_below(paths: Sequence[str]) -> list[tuple[str, Path]]:
    """The files that are meant by paths, as a load would find them, and the names under which to send them: below
    the folder that was named, if one was."""
    from tapehouse.bulk.plan.paths import find

    found: dict[Path, str] = {}
    for path in paths:
        folder = Path(path)
        for file in find([path]).files:
            name = file.relative_to(folder.parent).as_posix() if folder.is_dir() else file.name
            found.setdefault(file, name)
    return [(name, file) for file, name in found.items()]


def _open(url: str) -> _Opened:
    from tapehouse.query.history import StoredHistory
    from tapehouse.registry import open_store

    store: Any = open_store(url, threads=os.cpu_count() or 1)
    return _Opened(store=store, history=StoredHistory(store))
