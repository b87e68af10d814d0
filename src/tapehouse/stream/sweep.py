"""Those who are behind read the log together: one reader passes over it, and takes them along as it reaches where each
is, up to what comes live. Each entry is read and encoded once, however many want it.

A client that does not read is left where it is, and waits for the next pass.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from tapehouse.bus.base import Bus, Ends, Piece
from tapehouse.codec.live.channels import REJECTED
from tapehouse.codec.live.messages import EntryMessages
from tapehouse.codec.live.tokens import token_of
from tapehouse.errors import TapehouseError
from tapehouse.model import Position
from tapehouse.stream.routes import Routes
from tapehouse.stream.subscription import Phase, Subscription

_READ_ENTRIES = 64
_READ_BYTES = 1 << 20
_TURN_S = 0.005
"""How long it works before it lets the event loop do something else."""
_IDLE_S = 0.001
_PAUSE_S = 0.5

log = logging.getLogger(__name__)


class LiveEnd(Protocol):
    """The hub, to those who are behind it."""

    bus: Bus
    positions: dict[int, Position]
    delivered: int

    def join(self, subscription: Subscription) -> None:
        """Give it what comes from now on."""

    def flush_soon(self) -> None:
        """Write what is owed."""


class Sweep:
    """The readers of one hub that are behind. `len` is how many there are."""

    def __init__(self, hub: LiveEnd) -> None:
        self._hub = hub
        self._waiting: dict[Subscription, None] = {}
        self._riding: dict[Subscription, dict[int, int]] = {}
        """Those taken along, and after which entry of each partition each begins."""
        self._routes: dict[int, Routes] = {}
        self._offsets: dict[int, int] = {}
        self._seen = 0
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting) + len(self._riding)

    def add(self, subscription: Subscription) -> None:
        """Let it read on from where it is."""
        self._waiting[subscription] = None
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    def remove(self, subscription: Subscription) -> None:
        """Take it along no further."""
        self._waiting.pop(subscription, None)
        if self._riding.pop(subscription, None) is not None:
            for routes in self._routes.values():
                routes.remove(subscription)

    async def close(self) -> None:
        """Read no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._waiting or self._riding:
            try:
                await self._board()
                await self._pass_over()
            except TapehouseError as exc:
                log.error("cannot read the log for those who are behind: %s; trying again", exc)
                await asyncio.sleep(_PAUSE_S)

    async def _board(self) -> None:
        """Take along those who wait, if they are not behind where we are; when nobody rides, begin with the last."""
        if not self._waiting:
            return
        bus = self._hub.bus
        ends = await asyncio.to_thread(lambda: {p: bus.ends(p) for p in self._hub.positions})
        starts = {each: self._starts(each, ends) for each in self._waiting}
        if not self._riding:
            self._offsets = {p: min(start[p] for start in starts.values()) for p in ends}
            self._routes = {p: Routes() for p in ends}
        for subscription, start in starts.items():
            if subscription in self._waiting and all(start[p] >= offset for p, offset in self._offsets.items()):
                del self._waiting[subscription]
                self._riding[subscription] = start

    @staticmethod
    def _starts(subscription: Subscription, ends: dict[int, Ends]) -> dict[int, int]:
        """The number of the next entry that it wants of each partition; what it has lost is told."""
        starts = {}
        for partition, end in ends.items():
            starts[partition], lost = end.start(subscription.positions.get(partition, end.last))
            if lost is not None:
                subscription.frames.append(subscription.gap(lost, end.since))
                subscription.positions[partition] = Position(lost.first.epoch, lost.first.offset - 1)
        return starts

    async def _pass_over(self) -> None:
        """Read a piece of each partition for those who ride, and let those go who have come to the live end."""
        before = dict(self._offsets)
        for partition in before:
            piece = await asyncio.to_thread(self._read, partition)
            if piece.lost is not None:
                self._waiting.update(dict.fromkeys(self._riding))
                for subscription in list(self._riding):
                    self._unseat(subscription)
                return
            await self._dispatch(partition, piece)
        self._arrive()
        self._send()
        await asyncio.sleep(0 if self._offsets != before else _IDLE_S)

    def _read(self, partition: int) -> Piece:
        live = self._hub.positions[partition]
        offset = self._offsets[partition]
        if offset > live.offset:
            return Piece([])
        ends = self._hub.bus.ends(partition)
        return self._hub.bus.read(partition, ends.at(offset - 1), limit=_READ_ENTRIES, max_bytes=_READ_BYTES)

    async def _dispatch(self, partition: int, piece: Piece) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + _TURN_S
        for logged in piece.entries:
            if logged.position.offset > self._hub.positions[partition].offset:
                break  # the live end has not come that far: it will give this entry to those who join it
            self._seat(partition, logged.position.offset)
            if logged.entry.channel != REJECTED:
                self._hub.delivered += self._routes[partition].dispatch(EntryMessages(logged.entry))
            self._offsets[partition] = logged.position.offset + 1
            self._seen = logged.entry.ingested
            if loop.time() > due_s:
                await asyncio.sleep(0)
                due_s = loop.time() + _TURN_S

    def _seat(self, partition: int, offset: int) -> None:
        """From this entry on, give entries to those who begin with it."""
        for subscription, starts in self._riding.items():
            if starts.get(partition, offset + 1) <= offset:
                starts.pop(partition)
                self._routes[partition].add(subscription)

    def _unseat(self, subscription: Subscription) -> None:
        del self._riding[subscription]
        for routes in self._routes.values():
            routes.remove(subscription)

    def _send(self) -> None:
        """Write what they are owed; who does not read is left behind."""
        for subscription in list(self._riding):
            if subscription.frames:
                if not subscription.socket.reads:
                    self._unseat(subscription)
                    subscription.frames.clear()
                    subscription.phase = Phase.BEHIND
                    continue
                positions = self._positions_of(subscription)
                told = subscription.variant.event("position", position=token_of(positions, self._seen))
                subscription.socket.write(subscription.take(told))
                subscription.positions = positions

    def _positions_of(self, subscription: Subscription) -> dict[int, Position]:
        starts = self._riding[subscription]
        return {
            partition: subscription.positions[partition]
            if partition in starts and starts[partition] > offset
            else Position(self._hub.positions[partition].epoch, offset - 1)
            for partition, offset in self._offsets.items()
        }

    def _arrive(self) -> None:
        """Those who ride have come to the live end when all partitions have, in one turn of the event loop."""
        positions = self._hub.positions
        if any(offset != positions[partition].offset + 1 for partition, offset in self._offsets.items()):
            return
        for subscription in list(self._riding):
            self._unseat(subscription)
            token = token_of(positions, self._seen)
            subscription.frames.append(subscription.variant.event("caught_up", position=token))
            self._hub.join(subscription)
            self._hub.flush_soon()
