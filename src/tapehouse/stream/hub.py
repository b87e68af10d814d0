"""Gives what comes into the log to all who follow it. All of it happens in the event loop, but for reading the log.

    log ──► tail (a thread for each partition) ──► take: encoded once, to each follower's frames ──► flush: one write
                                                                                              to each socket

A flush writes what has come to every socket that takes it. A follower whose socket takes no more is held or, if it is
lossless, left behind: it reads the log from where it was, as soon as its client reads again (`sweep.py`).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tapehouse.bus.base import Bus, Piece
from tapehouse.codec.live.channels import REJECTED
from tapehouse.codec.live.messages import EntryMessages, Variant
from tapehouse.codec.live.tokens import token_of
from tapehouse.errors import TapehouseError
from tapehouse.model import Position
from tapehouse.stream.base import Delivery, StreamLimits
from tapehouse.stream.routes import Routes
from tapehouse.stream.subscription import Group, Phase, Subscription
from tapehouse.stream.sweep import Sweep

_READ_ENTRIES = 256
_READ_BYTES = 1 << 20
_WAIT_S = 0.5
_PAUSE_S = 1.0
_LONGEST_TAKE_S = 0.01
"""After so long of one piece of the log, what there is is flushed first."""
_REST = 1.5
"""A flush is followed by a rest of so many times as long as it took, so that sockets never take all of the time."""
_SHORTEST_REST_S = 0.001
_LONGEST_REST_S = 0.1

log = logging.getLogger(__name__)


class Hub:
    """The live end of the log, and those who follow it. Made and called in the event loop."""

    def __init__(self, bus: Bus, limits: StreamLimits | None = None) -> None:
        self.bus, self.limits = bus, limits or StreamLimits()
        self._loop = asyncio.get_running_loop()
        self.positions = {partition: bus.ends(partition).last for partition in range(bus.partitions)}
        """Up to where all live followers were given everything."""
        self._flushed = dict(self.positions)
        """Up to where they were sent everything."""
        self.seen = 0
        self._routes = Routes()
        self._live: dict[Subscription, None] = {}
        self._joined: set[Subscription] = set()
        """Those that no flush has reached yet: what they were sent they say themselves."""
        self._groups: dict[float, Group] = {}
        self._sweep = Sweep(self)
        self._flush_timer: asyncio.TimerHandle | None = None
        self._rest_until_s = 0.0
        self._stop = threading.Event()
        self._tails = [threading.Thread(target=self._tail, args=(p,), name=f"tail-{p}") for p in self.positions]
        self.delivered = self.entries = self.records = 0
        self.lag_s = 0.0
        for tail in self._tails:
            tail.start()

    def _tail(self, partition: int) -> None:
        """Follow a partition, in a thread of its own; what was read is taken before more is."""
        after = self.positions[partition]
        while not self._stop.is_set():
            try:
                piece = self.bus.read(partition, after, limit=_READ_ENTRIES, max_bytes=_READ_BYTES, wait_s=_WAIT_S)
            except TapehouseError as exc:
                log.error("cannot follow the log: %s; trying again", exc)
                self._stop.wait(_PAUSE_S)
                continue
            if piece.entries or piece.lost:
                taken = threading.Event()
                self._loop.call_soon_threadsafe(self._take, partition, piece, taken)
                while not (taken.wait(_WAIT_S) or self._stop.is_set()):
                    pass
                after = self.positions[partition]

    def _take(self, partition: int, piece: Piece, taken: threading.Event) -> None:
        """Give a piece of the log to all who follow."""
        try:
            if piece.lost is not None:
                self._tell_lost(partition, piece.lost.after, piece.lost.first)
            started_s = self._loop.time()
            for logged in piece.entries:
                entry = logged.entry
                if entry.channel != REJECTED:
                    messages = EntryMessages(entry)
                    self.delivered += self._routes.dispatch(messages)
                    for group in self._groups.values():
                        group.feed(messages)
                self.positions[partition] = logged.position
                self.seen = entry.ingested
                self.entries += 1
                self.records += entry.rows
                if self._loop.time() - started_s > _LONGEST_TAKE_S:
                    self._flush()
                    started_s = self._loop.time()
            if piece.entries:
                self.lag_s = max(0.0, (time.time_ns() - self.seen) / 1e9)
            self.flush_soon()
        finally:
            taken.set()

    def _tell_lost(self, partition: int, after: Position, first: Position) -> None:
        self.positions[partition] = Position(first.epoch, first.offset - 1)
        for subscription in self._live:
            told = subscription.variant.event("gap", reason="lost", partition=partition, first=first.offset)
            subscription.frames.append(told)
        log.error("partition %d of the log lost what came after %s; streaming goes on at %s", partition, after, first)

    def flush_soon(self) -> None:
        """Write what is owed, now or after the rest that follows a flush."""
        if self._flush_timer is None:
            now_s = self._loop.time()
            if now_s >= self._rest_until_s:
                self._flush()
            else:
                self._flush_timer = self._loop.call_at(self._rest_until_s, self._flush)

    def _flush(self) -> None:
        """Write to every socket what its followers are owed."""
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        started_s = self._loop.time()
        told: dict[Variant, bytes] = {}
        token = token_of(self.positions, self.seen)
        for subscription in [each for each in self._live if each.frames]:
            variant = subscription.variant
            position = told.get(variant)
            if position is None:
                position = told[variant] = variant.event("position", position=token)
            self._send(subscription, position)
        self._flushed.update(self.positions)
        self._joined.clear()
        took_s = self._loop.time() - started_s
        self._rest_until_s = self._loop.time() + min(_LONGEST_REST_S, max(_SHORTEST_REST_S, _REST * took_s))

    def _send(self, subscription: Subscription, position: bytes) -> None:
        socket = subscription.socket
        if socket.reads:
            if subscription.held:
                subscription.release(self._routes_of(subscription))
            socket.write(subscription.take(position))
        elif subscription.delivery is Delivery.LOSSLESS:
            self._leave_behind(subscription)
        elif not subscription.held:
            subscription.hold(self._routes_of(subscription))

    def _leave_behind(self, subscription: Subscription) -> None:
        """Forget what it is owed: the log has it."""
        if subscription not in self._joined:
            subscription.positions = dict(self._flushed)
        self.drop(subscription)
        subscription.frames.clear()
        subscription.phase = Phase.BEHIND

    def _routes_of(self, subscription: Subscription) -> Routes:
        if subscription.delivery is Delivery.CONFLATE:
            return self._groups[subscription.asked.interval_s].routes
        return self._routes

    def writable(self, subscription: Subscription) -> None:
        """Its client reads again."""
        if subscription.phase is Phase.BEHIND:
            self.follow(subscription)
        elif subscription in self._live and (subscription.held or subscription.frames):
            if subscription.held:
                subscription.release(self._routes_of(subscription))
            token = token_of(self.positions, self.seen)
            subscription.socket.write(subscription.take(subscription.variant.event("position", position=token)))

    def beat(self, subscriptions: Sequence[Subscription]) -> None:
        """Tell live subscriptions where they are, so that a quiet one can resume when the log has been trimmed."""
        token = token_of(self._flushed, self.seen)
        for subscription in subscriptions:
            if subscription in self._live and not subscription.held and not subscription.frames:
                subscription.socket.write(subscription.variant.event("position", position=token))

    def follow(self, subscription: Subscription) -> None:
        """Read the log from the subscription's positions on, and then what comes live."""
        subscription.phase = Phase.LOG
        self._sweep.add(subscription)

    def join(self, subscription: Subscription) -> None:
        """What comes from now on is given to it; what came before it has, or is owed in its frames."""
        subscription.phase = Phase.LIVE
        self._live[subscription] = None
        self._joined.add(subscription)
        if subscription.delivery is not Delivery.CONFLATE:
            self._routes.add(subscription)
            return
        interval_s = subscription.asked.interval_s
        if interval_s not in self._groups:
            self._groups[interval_s] = Group()
            self._loop.call_later(interval_s, self._tick, interval_s)
        self._groups[interval_s].routes.add(subscription)
        self._groups[interval_s].subscriptions[subscription] = None

    def _tick(self, interval_s: float) -> None:
        group = self._groups[interval_s]
        if not group.subscriptions:
            del self._groups[interval_s]
            return
        group.tick()
        self.flush_soon()
        if not self._stop.is_set():
            self._loop.call_later(interval_s, self._tick, interval_s)

    def drop(self, subscription: Subscription) -> None:
        """Give it nothing any more."""
        self._sweep.remove(subscription)
        if subscription not in self._live:
            return
        del self._live[subscription]
        self._joined.discard(subscription)
        self._routes_of(subscription).remove(subscription)
        if subscription.delivery is Delivery.CONFLATE:
            self._groups[subscription.asked.interval_s].subscriptions.pop(subscription, None)

    def stats(self) -> Mapping[str, Any]:
        """See `Streams.stats`."""
        phases = {"live": len(self._live), "catching_up": len(self._sweep)}
        return {
            "entries": self.entries,
            "records": self.records,
            "delivered": self.delivered,
            "lag_s": self.lag_s,
            **phases,
        }

    async def close(self) -> None:
        """Stop following the log."""
        self._stop.set()
        await self._sweep.close()
        for tail in self._tails:
            await asyncio.to_thread(tail.join)
