"""One client's side of the hub: what it asks for, and from where on each of its subscriptions begins."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tapehouse.codec.live.messages import event
from tapehouse.codec.live.tokens import Token, encode_token, token_of
from tapehouse.errors import (
    Conflict,
    InvalidRequest,
    InvalidToken,
    LimitExceeded,
    NotFound,
    NotSupported,
    RateLimited,
    TapehouseError,
    Unauthenticated,
)
from tapehouse.model import Position
from tapehouse.store.base import Capability, Recorded, Store
from tapehouse.stream.base import CloseCode, Delivery, Socket
from tapehouse.stream.hub import Hub
from tapehouse.stream.past import Past, latest
from tapehouse.stream.requests import (
    Asked,
    Auth,
    List,
    Operation,
    Ping,
    Subscribe,
    Unsubscribe,
    check_subscribe,
    decode_operation,
    shown,
)
from tapehouse.stream.subscription import Phase, Subscription

HISTORIES = 4
"""Subscriptions that read stored history at once; others wait their turn."""

log = logging.getLogger(__name__)

Positions = Callable[[bytes], Position]


class Streaming:
    """See `Streams`. `keep_up` reads the store; `position_of` reads the positions that it keeps."""

    def __init__(
        self, hub: Hub, store: Store, position_of: Positions, authenticate: Callable[[str], None] | None = None
    ) -> None:
        self.hub, self.store, self.limits = hub, store, hub.limits
        self.position_of, self.authenticate = position_of, authenticate
        self.histories = asyncio.Semaphore(HISTORIES)
        self.sessions: dict[StreamSession, None] = {}
        self._upkeep = asyncio.get_running_loop().create_task(self._look_after())

    def open(self, socket: Socket, *, authenticated: bool = True) -> StreamSession:
        """See `Streams.open`."""
        session = StreamSession(self, socket, authenticated or self.authenticate is None)
        self.sessions[session] = None
        return session

    def stats(self) -> Mapping[str, Any]:
        """See `Streams.stats`."""
        pending = sum(session.socket.pending for session in self.sessions)
        return {**self.hub.stats(), "clients": len(self.sessions), "pending_bytes": pending}

    async def _look_after(self) -> None:
        """Send heartbeats, and close connections of clients that stopped reading."""
        loop = asyncio.get_running_loop()
        beat_due_s = loop.time() + self.limits.heartbeat_s
        while True:
            await asyncio.sleep(1.0)
            now_s = loop.time()
            beat = now_s >= beat_due_s
            for session in list(self.sessions):
                session.look_after(now_s, beat=beat)
            beat_due_s = now_s + self.limits.heartbeat_s if beat else beat_due_s

    async def close(self, retry_after_s: float = 1.0) -> None:
        """Tell all clients to come back, here or elsewhere, and where they are; then end."""
        self._upkeep.cancel()
        for session in list(self.sessions):
            session.go_away(retry_after_s)
        await asyncio.gather(self._upkeep, return_exceptions=True)
        await self.hub.close()


class StreamSession:
    """See `Session`."""

    def __init__(self, server: Streaming, socket: Socket, authenticated: bool) -> None:
        self.socket = socket
        self._server, self._hub = server, server.hub
        self.authenticated = authenticated
        self._subscriptions: dict[str, Subscription] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._reads = asyncio.Event()
        self._reads.set()
        self._stalled_s: float | None = None
        self._allowance, self._allowed_s = server.limits.operations_per_s, 0.0
        socket.on_writable(self._on_writable)
        limits = server.limits
        self._say("welcome", format=socket.wire, heartbeat_s=limits.heartbeat_s, subscriptions=limits.subscriptions)

    def _say(self, kind: str, **members: Any) -> None:
        self.socket.write(event(self.socket.wire, kind, **members))

    def receive(self, message: str | bytes) -> None:
        """See `Session.receive`."""
        operation: Operation | None = None
        try:
            self._check_rate()
            operation = decode_operation(message, self.socket.wire)
            self._do(operation)
        except TapehouseError as exc:
            name = getattr(operation, "id", None)
            self._say("error", id=name, code=exc.code, message=exc.message, **_details(exc))

    def _check_rate(self) -> None:
        """A bucket that fills with the operations that are allowed a second, and holds those of one second."""
        rate, now_s = self._server.limits.operations_per_s, asyncio.get_running_loop().time()
        self._allowance = min(rate, self._allowance + (now_s - self._allowed_s) * rate)
        self._allowed_s = now_s
        if self._allowance < 1:
            raise RateLimited(f"a client may say {rate:g} things a second; this one was not done", limit=rate)
        self._allowance -= 1

    def _do(self, operation: Operation) -> None:
        if isinstance(operation, Auth):
            self._authenticate(operation.key)
        elif isinstance(operation, Ping):
            self._say("pong", data=operation.data)
        elif not self.authenticated:
            raise Unauthenticated('send {"op": "auth", "key": "..."} first, or the key in a header')
        elif isinstance(operation, Subscribe):
            self._subscribe(check_subscribe(operation, self._server.limits))
        elif isinstance(operation, Unsubscribe):
            self._unsubscribe(operation.id)
        elif isinstance(operation, List):
            held = [{"id": name, **shown(one.asked), "phase": one.phase} for name, one in self._subscriptions.items()]
            self._say("subscriptions", subscriptions=held)

    def _authenticate(self, key: str) -> None:
        if self._server.authenticate is not None:
            self._server.authenticate(key)
        self.authenticated = True
        self._say("authenticated")

    def _subscribe(self, asked: Asked) -> None:
        if asked.id in self._subscriptions:
            raise Conflict(f"there is a subscription {asked.id!r} already; unsubscribe it, or name another id")
        if len(self._subscriptions) >= self._server.limits.subscriptions:
            most = self._server.limits.subscriptions
            raise LimitExceeded(f"a client may have {most} subscriptions", limit=most)
        if asked.delivery is Delivery.CONFLATE and asked.since is not None:
            raise InvalidRequest("a conflated subscription begins now or with a snapshot, not in the past")
        subscription = Subscription(asked, self.socket)
        begin = self._begin(subscription)
        self._subscriptions[asked.id] = subscription
        self.socket.write(subscription.variant.event("subscribed", **shown(asked)))
        begin()

    def _begin(self, subscription: Subscription) -> Callable[[], None]:
        """How it begins; raises what is wrong with where it wants to."""
        asked, hub = subscription.asked, self._hub
        if asked.since is not None or asked.snapshot:
            if Capability.KEEPS_UP not in self._server.store.capabilities:
                raise NotSupported("this store does not know how far it came with the log; subscribe from now")
            return lambda: self._start(asked.id, self._from_past(subscription))
        if asked.token is not None and asked.delivery is not Delivery.CONFLATE:
            subscription.positions = self._checked(asked.token)
            return lambda: hub.follow(subscription)
        subscription.positions = dict(hub.positions)
        return lambda: self._join(subscription)

    def _join(self, subscription: Subscription) -> None:
        position = token_of(self._hub.positions, self._hub.seen)
        subscription.frames.append(subscription.variant.event("caught_up", position=position))
        self._hub.join(subscription)
        self._hub.flush_soon()

    def _checked(self, token: Token) -> dict[int, Position]:
        """The positions of a token, if this log can have given them."""
        positions = token.log()
        for partition, at in positions.items():
            live = self._hub.positions.get(partition)
            if live is None:
                raise InvalidToken(f"the log has no partition {partition}", parameter="from")
            if at.epoch > live.epoch or (
                at.epoch == live.epoch and at.offset > self._hub.bus.ends(partition).last.offset
            ):
                raise InvalidToken("this position is in the future of this log", parameter="from")
        return positions

    def _start(self, name: str, work: Awaitable[None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except TapehouseError as exc:
                self._say("error", id=name, code=exc.code, message=exc.message, **_details(exc))
                self._forget(name)

        self._tasks[name] = asyncio.get_running_loop().create_task(guarded())

    async def _from_past(self, subscription: Subscription) -> None:
        """Send what is stored, then follow the log from where the store was."""
        subscription.phase = Phase.HISTORY
        async with self._server.histories:
            recorded = await asyncio.to_thread(self._server.store.recorded)  # type: ignore[attr-defined]
            if subscription.asked.snapshot:
                summaries = await asyncio.to_thread(latest, self._server.store, subscription.asked, recorded)
                await self._ready()
                subscription.frames += [summary.frame(subscription.variant) for summary in summaries]
                self.socket.write(subscription.take())
            else:
                await self._send_past(subscription, recorded)
            subscription.positions = await asyncio.to_thread(self._positions_of, recorded)
        self._tasks.pop(subscription.asked.id, None)
        self._hub.follow(subscription)

    async def _ready(self) -> None:
        """Wait until the client has read what was sent."""
        while not self.socket.reads:
            self._reads.clear()
            await self._reads.wait()

    async def _send_past(self, subscription: Subscription, recorded: Recorded) -> None:
        since = subscription.asked.since or 0
        past = await asyncio.to_thread(Past, self._server.store, subscription.asked, recorded.commit, since)
        while (span := await asyncio.to_thread(past.next)) is not None:
            await self._ready()
            subscription.frames += [summary.frame(subscription.variant) for summary in span.messages]
            token = encode_token(Token(history=span.end))
            self.socket.write(subscription.take(subscription.variant.event("position", position=token)))

    def _positions_of(self, recorded: Recorded) -> dict[int, Position]:
        """Where in the log the store was; in a partition of which it has nothing, before the first entry."""
        ends = {partition: self._hub.bus.ends(partition) for partition in self._hub.positions}
        kept = {partition: recorded.positions.get(str(partition)) for partition in ends}
        return {
            partition: ends[partition].at(ends[partition].first - 1) if at is None else self._server.position_of(at)
            for partition, at in kept.items()
        }

    def _unsubscribe(self, name: str) -> None:
        if name not in self._subscriptions:
            raise NotFound(f"there is no subscription {name!r}", subscription=name)
        variant = self._subscriptions[name].variant
        self._forget(name)
        self.socket.write(variant.event("unsubscribed"))

    def _forget(self, name: str) -> None:
        subscription = self._subscriptions.pop(name)
        subscription.phase = Phase.OVER
        task = self._tasks.pop(name, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        self._hub.drop(subscription)
        subscription.frames.clear()

    def _on_writable(self) -> None:
        self._stalled_s = None
        self._reads.set()
        for subscription in self._subscriptions.values():
            self._hub.writable(subscription)

    def look_after(self, now_s: float, *, beat: bool) -> None:
        """Close a connection whose client has read nothing for too long; send a heartbeat when it is due."""
        if not self.socket.reads:
            self._stalled_s = now_s if self._stalled_s is None else self._stalled_s
            if now_s - self._stalled_s > self._server.limits.stall_s:
                self.socket.close(CloseCode.STALLED, f"nothing was read for {self._server.limits.stall_s:g} s")
                self.close()
        elif beat:
            self._hub.beat(list(self._subscriptions.values()))
            self._say("heartbeat", lag_ms=round(self._hub.lag_s * 1_000, 1))

    def go_away(self, retry_after_s: float) -> None:
        """The server stops."""
        self._say("closing", retry_after_s=retry_after_s)
        self.socket.close(CloseCode.GOING_AWAY, "the server stops; come back")
        self.close()

    def close(self) -> None:
        """See `Session.close`."""
        self._server.sessions.pop(self, None)
        for name in list(self._subscriptions):
            self._forget(name)


def _details(exc: TapehouseError) -> dict[str, Any]:
    """What an error says beside its sentence, as a message can have it."""
    taken = ("id", "type", "code", "message")
    return {name: value for name, value in exc.details.items() if name not in taken}
