"""Clients of every kind of place, sync and async, behind one face."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tapehouse import AsyncClient, Client
from tapehouse.api.app import create_app
from tapehouse.api.doors import Door
from tapehouse.api.keys import Keys
from tapehouse.bulk.base import LoadOptions, LoadReport
from tapehouse.bulk.certificate import certify
from tapehouse.bulk.checked import check_stored, load_checked
from tapehouse.bulk.checks.base import Checks, Validate
from tapehouse.bulk.recognise.known import sent_descriptions
from tapehouse.jobs.loads import LoadJobs
from tapehouse.jobs.runner import Runner
from tapehouse.jobs.spool import Spool
from tapehouse.query.base import Limits
from tapehouse.query.history import StoredHistory
from tapehouse.server import start_in_thread
from tapehouse.settings import Settings
from tapehouse.store.duckdb import DuckDBStore
from tapehouse.store.memory import MemoryStore

DAY_NS = 86_400_000_000_000
JAN_2_NS = 1_704_153_600_000_000_000  # 2024-01-02T00:00:00Z


def bars(symbol: str = "AAPL", closes: list[float] | None = None, first: int = JAN_2_NS) -> pl.DataFrame:
    """One bar a day."""
    values = pl.Series("close", closes or [185.0, 184.0, 181.5])
    times = pl.Series("timestamp", [first + day * DAY_NS for day in range(len(values))])
    return pl.DataFrame(
        [
            pl.Series("symbol", [symbol] * len(values)),
            times.cast(pl.Datetime("ns", "UTC")),
            values.alias("open"),
            (values + 1).alias("high"),
            (values - 1).alias("low"),
            values,
            pl.Series("volume", [100.0] * len(values)),
        ]
    )


class Waiting:
    """An `AsyncClient` that is called like a `Client`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(*args, **options)
        try:
            self.__enter__()
        except BaseException:
            self._runner.close()
            raise

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **options: Any) -> Any:
            if name == "stream_bars":
                return WaitingStream(self._runner, method(*args, **options))
            return self._runner.run(method(*args, **options))

        return call

    def __enter__(self) -> Waiting:
        self._runner.run(self._client.__aenter__())
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


class WaitingStream:
    """The same for a stream."""

    def __init__(self, runner: asyncio.Runner, stream: Any) -> None:
        self._runner, self._stream = runner, stream
        runner.run(stream.__aenter__())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[Any]:
        frames = aiter(self._stream)
        with contextlib.suppress(StopAsyncIteration):
            while True:
                yield self._runner.run(anext(frames))

    def __enter__(self) -> WaitingStream:
        return self

    def __exit__(self, *exc: Any) -> None:
        self._runner.run(self._stream.__aexit__(*exc))


class Served:
    """A store that a real server answers for, at a free port, from a thread."""

    def __init__(self, store: Any, settings: Settings, keys: Keys | None) -> None:
        self.store = store
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        limits = Limits(symbols=settings.max_symbols, page_rows=settings.max_page_rows, buckets=settings.max_buckets)
        self._spool = tempfile.TemporaryDirectory()
        self._runner = Runner(store)
        loads = LoadJobs(
            self._runner,
            self._load,
            partial(certify, store),
            self._spool_of(settings),
            assess=partial(check_stored, store),
            read_formats=sent_descriptions,
        )
        self._api = create_app(StoredHistory(store, limits), store, settings, keys, loads=loads)
        self._door = Door(self._api.over_tcp, settings, self._listener)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._door.run_until_closed()))
        self._thread.start()

    def _spool_of(self, settings: Settings) -> Spool:
        folder = Path(self._spool.name) / "spool"
        return Spool(folder, upload_bytes=settings.max_upload_bytes, total_bytes=settings.max_spool_bytes)

    def _load(self, paths: Sequence[str], options: LoadOptions, *, validate: Validate, **how: Any) -> LoadReport:
        folder = Path(self._spool.name) / "quarantine"
        return load_checked(paths, self.store, options, Checks(validate=validate), quarantine_dir=folder, **how)

    def close(self) -> None:
        self._runner.stop()
        self._door.close()
        self._thread.join()
        self._api.close()
        self._runner.close()
        self._listener.close()
        self._spool.cleanup()


Serve = Callable[..., Served]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server over a store (by default an empty one in memory) with those settings."""
    with contextlib.ExitStack() as stack:

        def start(*, store: Any = None, keys: Keys | None = None, **settings: Any) -> Served:
            server = Served(store or MemoryStore(), Settings(**settings), keys)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture(
    params=[
        pytest.param((Client, "memory"), id="sync, in this process"),
        pytest.param((Waiting, "folder"), id="async, in this process"),
        pytest.param((Client, "socket"), id="sync, over a socket"),
        pytest.param((Waiting, "http"), id="async, over TCP"),
    ]
)
def client(request: pytest.FixtureRequest, tmp_path: Path, serve: Serve) -> Iterator[Any]:
    """A client of an empty store; a test that takes it runs for every way to reach one."""
    kind, place = request.param
    with contextlib.ExitStack() as stack:
        where: Any = tmp_path
        if place == "memory":
            where = "memory://"
        elif place == "http":
            where = serve().url
        elif place == "socket":
            store = stack.enter_context(contextlib.closing(DuckDBStore(tmp_path)))
            stack.enter_context(contextlib.closing(start_in_thread(store, Path(store.owner.socket))))
        yield stack.enter_context(kind(where))
