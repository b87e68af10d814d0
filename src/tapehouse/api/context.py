"""What every route works with: the store, and what is counted."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

from fastapi import Depends
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from starlette.requests import Request

from tapehouse.api.answers.spool import Spool
from tapehouse.api.answers.validators import Tags
from tapehouse.api.keys import Keys
from tapehouse.api.workers import Readiness, Slots, Workers
from tapehouse.errors import LimitExceeded, NotSupported
from tapehouse.jobs.base import Loads
from tapehouse.query.base import History
from tapehouse.settings import Settings
from tapehouse.store.base import Capability, Store

disable_created_metrics()  # type: ignore[no-untyped-call]

_LATENCIES_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


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
        self.stalled = counter("stalled_clients", "Clients cut off because they stopped reading.")
        self.disconnected = counter("disconnected_clients", "Clients that went away before their answer.")
        self.compactions = counter("compactions", "Compactions, by how they ended.", "outcome")
        self.compacted_rows = counter("compacted_rows", "Rows moved into the archive.")

    def observe(
        self, store: Store, workers: Workers, open_answers: Slots, open_bodies: Slots, open_events: Slots
    ) -> None:
        """Have the store's own numbers, and ours, asked for whenever the metrics are."""
        pending = Gauge("tapehouse_pending_queries", "Store calls that run or wait.", registry=self.registry)
        pending.set_function(lambda: workers.pending)
        open_ = Gauge("tapehouse_open_answers", "Large answers being streamed.", registry=self.registry)
        open_.set_function(lambda: open_answers.taken)
        bodies = Gauge("tapehouse_open_body_bytes", "Memory kept for bodies of requests.", registry=self.registry)
        bodies.set_function(lambda: open_bodies.taken)
        watchers = Gauge("tapehouse_job_watchers", "Clients that watch jobs.", registry=self.registry)
        watchers.set_function(lambda: open_events.taken)
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


class LiveHalf(Protocol):
    """`api.live.parts.Live`, as far as all routes know it."""

    @property
    def recorded(self) -> int:
        """How many commits were made of live records since the start."""


@dataclass(frozen=True)
class Context:
    """One server's parts. `keys` is None where no keys can be."""

    history: History
    store: Store
    settings: Settings
    keys: Keys | None
    workers: Workers
    metrics: Metrics
    ready: Readiness
    open_answers: Slots
    """One for each large answer that may be streamed at the same time."""
    open_bodies: Slots
    """One for each byte of the bodies that are being read or taken."""
    tags: Tags
    spool: Spool
    """Answers that are read in ranges."""
    open_events: Slots
    """One for each job that is being watched."""
    loads: Loads | None = None
    """None where no jobs are run."""
    live: LiveHalf | None = None
    """None where no live records are taken."""
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
