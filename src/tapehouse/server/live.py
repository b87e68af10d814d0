"""The live half of a server: the log, who writes to it and reads from it, in the order in which they start.

log       is opened
desk      takes live records, once it has learnt from the log what came before
recorder  writes what the log has to the store, in a thread
trimmer   lets go of what is stored and old, in the same thread's breaks
streams   follow the log in the server's event loop
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tapehouse.api.app import Api
from tapehouse.api.keys import Scope
from tapehouse.api.live.parts import Live
from tapehouse.api.security import key_check
from tapehouse.bus.base import Bus, Retention
from tapehouse.derive.deriver import Deriver
from tapehouse.errors import InvalidSetting, TapehouseError, UnknownInterval
from tapehouse.ingest.checks import Window
from tapehouse.ingest.desk import GROUP as INGEST
from tapehouse.ingest.desk import Desk
from tapehouse.ingest.feeder import Feeder
from tapehouse.model import Interval, Position
from tapehouse.record.base import decode_position
from tapehouse.record.recorder import Recorder
from tapehouse.registry import open_bus
from tapehouse.settings import Settings
from tapehouse.sources.base import Feed
from tapehouse.store.base import Capability, Store
from tapehouse.store.tables import conform
from tapehouse.stream.base import StreamLimits
from tapehouse.stream.hub import Hub
from tapehouse.stream.sessions import Streaming

TRIM_EVERY_S = 10.0
_SIM_HEARTBEAT_S = 30.0

logger = logging.getLogger(__name__)


@contextmanager
def live_half(store: Store, settings: Settings) -> Iterator[Live]:
    """Everything of it but the streams, which need an event loop."""
    bus: Any = open_bus(bus_url(store, settings), max_bytes=settings.log_max_bytes)
    stop = threading.Event()
    threads: list[threading.Thread] = []
    try:
        window = Window(settings.max_future_s, settings.max_late_s, settings.grace_s)
        desk = Desk(bus, conform, window=window)
        live = Live(bus, desk)
        if Capability.KEEPS_UP in store.capabilities:
            keeps_up: Any = store
            live.records = recorder = Recorder(bus, keeps_up, flush_s=settings.record_interval_s)
            threads.append(threading.Thread(target=recorder.run, args=(stop,), name="recorder"))
        for partition in range(bus.partitions) if settings.derive_intervals else ():
            deriver = _deriver(live, partition, store, settings)
            threads.append(threading.Thread(target=deriver.run, args=(stop,), name=f"deriver-{partition}"))
        threads.append(threading.Thread(target=_trim, args=(live, settings, stop), name="trimmer"))
        if settings.simulate_per_s:
            feeder = Feeder(_simulation(settings), desk)
            threads.append(threading.Thread(target=feeder.run, args=(stop,), name="simulation"))
        for thread in threads:
            thread.start()
        yield live
        desk.checkpoint()
    finally:
        stop.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        bus.close()


def _deriver(live: Live, partition: int, store: Store, settings: Settings) -> Deriver:
    try:
        intervals = [Interval.parse(name) for name in settings.derive_intervals]
    except UnknownInterval as exc:
        raise InvalidSetting(f"derive_intervals: {exc.message}", setting="derive_intervals") from exc
    return Deriver(live.bus, partition, store, live.records, intervals=intervals, grace_s=settings.grace_s)


def _simulation(settings: Settings) -> Feed:
    """A market that is always open, another one at each start."""
    from tapehouse.sources.sim import SimFeed, SimMarket

    now = time.time_ns()
    market = SimMarket(settings.simulate_symbols, seed=now % 2**32, trades_per_s=settings.simulate_per_s, start_ns=now)
    return SimFeed(market, heartbeat_s=_SIM_HEARTBEAT_S)


def bus_url(store: Store, settings: Settings) -> str:
    """Where the log is: as told, else in the folder of the store, else in memory."""
    folder: Path | None = getattr(store, "folder", None)
    return settings.bus or ("memory://" if folder is None else f"sqlite:///{folder / 'log'}")


def _trim(live: Live, settings: Settings, stop: threading.Event) -> None:
    """Every so often let go of what is old, or of what is stored when the log takes too much."""
    keep = Retention(age_s=settings.log_keep_s, bytes=settings.log_max_bytes // 2)
    while not stop.wait(TRIM_EVERY_S):
        try:
            live.bus.trim(keep, _needed(live))
        except TapehouseError as exc:
            logger.error("cannot trim the log: %s", exc)


def _needed(live: Live) -> dict[int, Position]:
    """What nobody needs any more, who must read all: by partition, the position of who is furthest behind."""
    ends: Bus = live.bus
    before = {partition: ends.ends(partition) for partition in range(live.bus.partitions)}
    needed = {partition: end.last for partition, end in before.items()}
    for name in (name for name in live.bus.groups() if name != INGEST):
        for partition, at in live.bus.committed(name).positions.items():
            needed[partition] = min(at, needed.get(partition, at))
    if live.records is not None:
        stored = live.records.progress().positions
        for partition, end in before.items():
            needed[partition] = min(needed[partition], stored.get(partition, end.at(end.first - 1)))
    return needed


@contextlib.asynccontextmanager
async def streaming(live: Live, api: Api) -> AsyncIterator[Streaming]:
    """Streams, until the end of the block."""
    settings, here = api.context.settings, api.context
    limits = StreamLimits(
        subscriptions=settings.max_subscriptions,
        symbols=settings.max_topics,
        outbox_bytes=settings.max_outbox_bytes,
        stall_s=settings.stall_timeout_s,
        operations_per_s=settings.max_operations_per_s,
        heartbeat_s=settings.stream_heartbeat_s,
    )
    streams = Streaming(Hub(live.bus, limits), here.store, decode_position, key_check(here, Scope.READ))
    live.streams = streams
    try:
        yield streams
    finally:
        await streams.close()
