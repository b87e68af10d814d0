"""The composition root: builds a server from its settings, starts it in order, stops it in reverse.

    keys      are read first: a server that anybody could use does not start
    port      is taken next, so that a second server says so before it touches any data
    store     is opened, and with it the folder's lock taken
    log       is opened, live records are taken, and written to the store
    jobs      of former processes are looked at: those that were queued are queued again; and new ones taken
    api       is built over the store, and served by the folder's Unix socket and by TCP
    streams   follow the log
    compactor runs beside them

Stopping goes the other way. Jobs are asked to end after their current step, which those who watch them still hear, and
clients of streams are told to come back. Then the doors close: no request comes in any more, and those that are in are
answered, or cut off after `shutdown_timeout_s`; a second signal cuts them off at once. Then the threads that call the
store: what waits for one is dropped; what runs, be it a compaction, comes to its end. What the log has beyond the store
is stored at the next start. The store closes last, when nobody uses it; that lets go of the folder, so the next owner
finds all at rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvloop

from tapehouse import dashboard, logs
from tapehouse.api.app import Api, Page, create_app
from tapehouse.api.doors import Door
from tapehouse.api.keys import Keys
from tapehouse.api.live.parts import Live
from tapehouse.api.routes.ops import compact_now
from tapehouse.api.security import check_exposure, is_loopback
from tapehouse.bulk.base import Description, LoadOptions, LoadReport
from tapehouse.bulk.certificate import certify
from tapehouse.bulk.checked import check_stored, load_checked
from tapehouse.bulk.checks.base import Checks, Validate
from tapehouse.bulk.recognise.known import sent_descriptions
from tapehouse.calendars import timeline
from tapehouse.codec import read_instruments
from tapehouse.errors import InvalidSetting, TapehouseError, UnreadableFile
from tapehouse.jobs.base import LoadFiles
from tapehouse.jobs.loads import LoadJobs
from tapehouse.jobs.runner import Runner
from tapehouse.jobs.spool import Spool
from tapehouse.query.base import Limits
from tapehouse.query.history import StoredHistory
from tapehouse.registry import open_store
from tapehouse.server.live import live_half, streaming
from tapehouse.settings import Settings
from tapehouse.store.base import Capability, Store
from tapehouse.times import format_time

_GARBAGE = 10_000
"""Objects that come before Python looks for cycles among them; by itself after 700, one request's."""

logger = logging.getLogger("tapehouse.server")


def serve(settings: Settings, formats: Sequence[Description] = ()) -> None:
    """Serve until SIGTERM or SIGINT; a second one stops waiting for open requests. Raises what stops the start.

    Loads know the layouts `formats` beside those that are built in.
    """
    logs.configure(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, formats))


async def _serve(settings: Settings, formats: Sequence[Description]) -> None:
    stopping = asyncio.Event()
    async with AsyncExitStack() as stack:
        keys = keys_of(settings)
        check_exposure(settings, keys)
        listener = stack.enter_context(contextlib.closing(_listen(settings)))
        store = stack.enter_context(_opened(settings))
        live = stack.enter_context(live_half(store, settings))
        loads = await stack.enter_async_context(loads_of(store, settings, formats))
        api = api_of(store, settings, keys, loads, live)
        stack.push_async_callback(asyncio.to_thread, api.close)
        streams = await stack.enter_async_context(streaming(live, api))
        await stack.enter_async_context(_compacting(api, settings))
        doors = [Door(api.over_tcp, settings, listener)]
        if (path := socket_of(store)) is not None:
            doors.append(Door(api.over_socket, settings, stack.enter_context(unix_socket(path))))
        _on_signals(stopping, doors)
        await stack.enter_async_context(open_doors(doors))
        _collect_less(stack)
        _welcome(store, settings, keys, _announced(store, listener))
        await stopping.wait()
        logger.info("stopping")
        await asyncio.gather(asyncio.to_thread(loads.jobs.stop), streams.close())


def _collect_less(stack: AsyncExitStack) -> None:
    """What is there now stays, and requests leave few cycles: looking for them took 8 % of a busy server's time."""
    gc.freeze()
    stack.callback(gc.unfreeze)  # else libraries say at the end of the process that it leaks
    stack.callback(gc.set_threshold, *gc.get_threshold())
    gc.set_threshold(_GARBAGE)


@contextlib.asynccontextmanager
async def open_doors(doors: list[Door]) -> AsyncIterator[None]:
    """Serve by those doors until the end of the block."""
    tasks = [asyncio.create_task(door.run_until_closed()) for door in doors]
    try:
        while not all(door.started for door in doors):
            for task in tasks:
                if task.done():
                    await task
            await asyncio.sleep(0.01)
        yield
    finally:
        for door in doors:
            door.close()
        await asyncio.gather(*tasks)


def _on_signals(stopping: asyncio.Event, doors: list[Door]) -> None:
    def stop() -> None:
        if stopping.is_set():
            for door in doors:
                door.close(at_once=True)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)


def keys_of(settings: Settings) -> Keys | None:
    """The keys of the file that the settings name, or of the data folder; None for a store without a folder."""
    if settings.keys_file is not None:
        return Keys(settings.keys_file)
    scheme, _, folder = settings.store.partition(":///")
    return Keys(Path(folder) / "keys.json") if scheme == "duckdb" and folder else None


def _listen(settings: Settings) -> socket.socket:
    """The TCP socket, bound; `InvalidSetting` says why it cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as exc:
        raise InvalidSetting(f"host is {settings.host!r}, which is no address: {exc.strerror}", setting="host") from exc
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2_048)
    except OSError as exc:
        listener.close()
        raise _unusable(settings, exc) from exc
    return listener


def _unusable(settings: Settings, exc: OSError) -> InvalidSetting:
    place = f"{settings.host}:{settings.port}"
    if exc.errno == errno.EADDRINUSE:
        return InvalidSetting(
            f"{place} is taken by another program; stop it, or choose another port with --port", setting="port"
        )
    if exc.errno == errno.EACCES:
        return InvalidSetting(
            f"this user may not listen at {place}; ports from 1024 on are free to all", setting="port"
        )
    return InvalidSetting(f"cannot listen at {place}: {exc.strerror}", setting="host")


@contextmanager
def unix_socket(path: Path) -> Iterator[socket.socket]:
    """A socket that only this user can open. One that a killed owner left is replaced: we hold the folder's lock."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    previous = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as exc:
        listener.close()
        raise InvalidSetting(f"cannot listen at {path}: {exc.strerror}", file=str(path)) from exc
    finally:
        os.umask(previous)
    listener.listen(2_048)
    try:
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)


@contextmanager
def _opened(settings: Settings) -> Iterator[Store]:
    store: Any = open_store(
        settings.store, memory_limit_mb=settings.store_memory_limit_mb, threads=settings.threads or os.cpu_count() or 1
    )
    with ExitStack() as stack:
        if hasattr(store, "close"):
            stack.callback(store.close)
        if settings.instruments is not None:
            _put_instruments(store, Path(settings.instruments))
        yield store


def _put_instruments(store: Any, path: Path) -> None:
    try:
        instruments = read_instruments(path)
        for instrument in instruments:
            timeline(instrument)
    except UnreadableFile as exc:
        raise InvalidSetting(exc.message, setting="instruments") from exc
    except TapehouseError as exc:
        raise InvalidSetting(f"{path}: {exc}", setting="instruments") from exc
    if Capability.INSTRUMENTS not in store.capabilities:
        raise InvalidSetting("this store keeps no instruments", setting="instruments")
    store.put_instruments(instruments)


@contextlib.asynccontextmanager
async def loads_of(store: Store, settings: Settings, formats: Sequence[Description]) -> AsyncIterator[LoadJobs]:
    """The jobs of the store; what still runs at the end is asked to stop, and waited for."""
    folder: Path | None = getattr(store, "folder", None)
    spooled = settings.spool_folder or (folder and folder / "spool")
    spool = Spool(
        spooled and Path(spooled), upload_bytes=settings.max_upload_bytes, total_bytes=settings.max_spool_bytes
    )
    runner = await asyncio.to_thread(
        Runner, store, running=settings.max_running_jobs, waiting=settings.max_waiting_jobs
    )
    try:
        load = _loader(store, settings, folder or Path())
        loads = LoadJobs(
            runner,
            load,
            partial(certify, store),
            spool,
            settings.load_folders,
            assess=partial(check_stored, store, sample_rows=settings.sample_rows),
            read_formats=sent_descriptions,
            own_formats=formats,
        )
        await asyncio.to_thread(loads.restart)
        yield loads
    finally:
        await asyncio.to_thread(runner.stop)
        await asyncio.to_thread(runner.close)
        spool.close()


def _loader(store: Any, settings: Settings, folder: Path) -> LoadFiles:
    """How jobs load files into the store."""

    def load(paths: Sequence[str], options: LoadOptions, *, validate: Validate, **how: Any) -> LoadReport:
        checks = Checks(validate=validate, sample_rows=settings.sample_rows)
        return load_checked(paths, store, options, checks, quarantine_dir=folder / "quarantine", **how)

    return load


def api_of(store: Store, settings: Settings, keys: Keys | None, loads: LoadJobs, live: Live | None = None) -> Api:
    """The API over all of it."""
    limits = Limits(symbols=settings.max_symbols, page_rows=settings.max_page_rows, buckets=settings.max_buckets)
    page = Page(dashboard.STATIC, dashboard.CONTENT_SECURITY_POLICY)
    return create_app(StoredHistory(store, limits), store, settings, keys, page, loads, live)


@contextlib.asynccontextmanager
async def _compacting(api: Api, settings: Settings) -> AsyncIterator[None]:
    """Compact every so often; a failure is logged and counted, and tried again next time."""
    if Capability.COMPACTS not in api.context.store.capabilities or settings.compact_interval_s == 0:
        yield
        return

    async def regularly() -> None:
        while True:
            await asyncio.sleep(settings.compact_interval_s)
            try:
                await api.context.workers.compact.run(partial(compact_now, api.context))
            except Exception:
                logger.exception("the compaction failed; the next one is in %g s", settings.compact_interval_s)

    task = asyncio.create_task(regularly())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def socket_of(store: Any) -> Path | None:
    """Where the owner of the store's folder listens; None for a store that owns no folder."""
    owner = getattr(store, "owner", None)
    return Path(owner.socket) if owner is not None else None


def _announced(store: Any, listener: socket.socket) -> str:
    """The address at which HTTP is served, made known to those who look for the folder's owner."""
    host, port = listener.getsockname()[:2]
    place = f"[{host}]" if ":" in host else host
    address = f"http://{place}:{port}"
    if hasattr(store, "announce_address"):
        store.announce_address(address)
    return address


def _welcome(store: Store, settings: Settings, keys: Keys | None, address: str) -> None:
    """Say where the server is and what it holds."""
    held = store.coverage()
    rows = sum(series.rows for series in held)
    if held:
        first, last = min(series.first for series in held), max(series.last for series in held)
        span = f", {format_time(first)[:10]} to {format_time(last)[:10]}"
    else:
        span = "; `tapehouse load PATH` brings some"
    symbols = len({series.symbol for series in held})
    what = f"{symbols:,} symbol{'s' * (symbols != 1)}, {rows:,} row{'s' * (rows != 1)}{span}"
    if settings.log_format == "json":
        logger.info("serving", extra={"address": address, "store": settings.store, "symbols": symbols, "rows": rows})
        return
    sys.stdout.write(
        f"Tapehouse {version('tapehouse')} serves {address} ({_who_may(settings, keys)})\n  {settings.store}: {what}\n"
    )
    sys.stdout.flush()


def _who_may(settings: Settings, keys: Keys | None) -> str:
    if keys is not None and keys.asked_for:
        return "a key is needed"
    return "no key needed" if is_loopback(settings.host) else "INSECURE: everybody who gets there may do everything"
