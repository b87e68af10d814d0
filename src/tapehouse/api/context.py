"""What every route works with: the store, the threads in which it is called, and what is counted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from fastapi import Depends
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from starlette.requests import Request

from tapehouse.api.keys import Keys
from tapehouse.errors import LimitExceeded, NotSupported, Overloaded
from tapehouse.query.base import History
from tapehouse.settings import Settings
from tapehouse.store.base import Capability, Store

T = TypeVar("T")

logger = logging.getLogger(__name__)

disable_created_metrics()  # type: ignore[no-untyped-call]

_LATENCIES_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Workers:
    """A few threads for calls that block, and a bounded queue before them: who comes first is served first."""

    def __init__(self, threads: int, max_waiting: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="tapehouse-query")
        self._most = threads + max_waiting
        self.pending = 0
        """Calls that run or wait."""

    async def run(self, call: Callable[[], T], *, admitted: bool = False) -> T:
        """What the call returns. Raises `Overloaded` when too many wait; what was admitted before is never refused."""
        if self.pending >= self._most and not admitted:
            raise Overloaded(f"{self.pending:,} queries are running or waiting already", retry_after_s=1.0)
        self.pending += 1
        try:
            return await asyncio.wrap_future(self._pool.submit(call))
        finally:
            self.pending -= 1

    def submit(self, call: Callable[[], None]) -> None:
        """Have the call made when its turn comes, for one who cannot wait; what it raises is logged."""
        self._pool.submit(call).add_done_callback(_log_failure)

    def close(self) -> None:
        """Let what runs and waits finish."""
        self._pool.shutdown()


def _log_failure(future: Future[None]) -> None:
    if not future.cancelled() and (error := future.exception()):
        logger.error("closing an answer failed: %s", error, exc_info=error)


class Metrics:
    """What Prometheus is told, in a registry of this app's own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(f"tapehouse_{name}", says, labels, registry=registry)

        self.requests = counter("http_requests", "Requests answered.", "route", "method", "status")
        self.latency = Histogram(
            "tapehouse_http_seconds", "Until an answer was sent.", ("route",), buckets=_LATENCIES_S, registry=registry
        )
        self.rows_served = counter("rows_served", "Rows sent in answers.")
        self.rows_written = counter("rows_written", "Rows taken by HTTP, by what became of them.", "outcome")
        self.open_answers = Gauge("tapehouse_open_answers", "Large answers being streamed.", registry=registry)
        self.stalled = counter("stalled_clients", "Clients cut off because they stopped reading.")
        self.compactions = counter("compactions", "Compactions, by how they ended.", "outcome")
        self.compacted_rows = counter("compacted_rows", "Rows moved into the archive.")

    def observe(self, store: Store, workers: Workers) -> None:
        """Have the store's own numbers asked for whenever the metrics are."""
        pending = Gauge("tapehouse_pending_queries", "Store calls that run or wait.", registry=self.registry)
        pending.set_function(lambda: workers.pending)
        self.registry.register(_StoreCollector(store))


class _StoreCollector:
    """Every number in the store's stats, as a gauge named after its place there."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self) -> list[Any]:
        return []  # so that registering asks nothing of the store

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, value in _numbers("tapehouse_store", self._store.stats()):
            yield GaugeMetricFamily(name, "Of the store: see GET /v1/stats.", value)


def _numbers(prefix: str, values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        name = f"{prefix}_{key}".replace(".", "_").replace("-", "_")
        if isinstance(value, dict):
            yield from _numbers(name, value)
        elif isinstance(value, int | float):
            yield name, float(value)


@dataclass(frozen=True)
class Context:
    """One server's parts. `keys` is None where no keys can be."""

    history: History
    store: Store
    settings: Settings
    keys: Keys | None
    workers: Workers
    metrics: Metrics
    open_answers: asyncio.Semaphore
    """One for each large answer that may be streamed at the same time."""
    started_s: float = field(default_factory=time.monotonic)
    """On the monotonic clock."""


async def _context(request: Request) -> Context:
    found: Context = request.app.state.context
    return found


Here = Annotated[Context, Depends(_context)]
"""The parameter of a route that wants the context."""


def capable(store: Store, capability: Capability) -> Any:
    """The store itself, as one that can do that; `NotSupported` when it has not declared it."""
    if capability not in store.capabilities:
        raise NotSupported(f"this store lacks the capability {capability!s}", capability=capability)
    return store


def check_number(here: Context, symbols: Sequence[str] | None) -> None:
    """Raise `LimitExceeded` when more symbols are named than one request may."""
    if symbols is not None and len(symbols) > here.settings.max_symbols:
        raise LimitExceeded(
            f"{len(symbols):,} symbols; one request may name {here.settings.max_symbols:,}", parameter="symbols"
        )
