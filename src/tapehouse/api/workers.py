"""The threads in which the store is called, a lane for each kind of call, so that no kind waits behind another.

A call that waits for its turn is dropped when its client goes away or the server stops. One that runs goes on to its
end, since a thread cannot be ended from outside; that is why long work is cut into steps.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from starlette.requests import ClientDisconnect, Request

from tapehouse.errors import Overloaded, Unavailable
from tapehouse.settings import Settings
from tapehouse.store.base import Store

T = TypeVar("T")

logger = logging.getLogger(__name__)

CLIENT = "tapehouse.client"
"""Where the scope of a request has the name of its key."""
PRESENCE = "tapehouse.presence"
"""Where the scope of a request has the `Presence` of who sent it."""

_LONGEST_RETRY_S = 60.0
_ALONE_S = 0.005
"""How long a call waits for the one that runs. Two short ones beside each other take longer than one after the other:
each needs the interpreter between any two calls of Arrow, and they take it from each other, 15 times a read."""
_BRIEF_S = 0.001
_OUTLIER = 4
_UNSURE = 4
_SHOWN = 0.25
_READY_FOR_S = 1.0
_READY_WITHIN_S = 5.0


class Presence:
    """Whether the client of a connection is still there; whoever holds the connection says when it is not.

    A task of each request that waits for ASGI's `http.disconnect` would tell the same, for a tenth of a millisecond.
    """

    def __init__(self) -> None:
        self._gone = False
        self._wanted: set[asyncio.Future[Any]] = set()

    async def during(self, wanted: asyncio.Future[T]) -> T:
        """What is waited for; when the client goes away before, it is cancelled, and `ClientDisconnect` raised."""
        self._wanted.add(wanted)
        try:
            if self._gone:
                wanted.cancel()
            return await wanted
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._gone and (task is None or not task.cancelling()):
                raise ClientDisconnect from None
            raise
        finally:
            self._wanted.discard(wanted)

    def leave(self) -> None:
        """The connection is lost."""
        self._gone = True
        for wanted in self._wanted:
            wanted.cancel()


class Turns(Generic[T]):
    """Who waits: clients take turns, and each is served in the order of its own calls. Pure, and not thread-safe."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()
        self._number = 0

    def __len__(self) -> int:
        return self._number

    def add(self, client: str, call: T) -> None:
        """Let the client's call wait, behind its own."""
        self._waiting.setdefault(client, deque()).append(call)
        self._number += 1

    def take(self) -> T:
        """The next call; raises `IndexError` when nobody waits."""
        if not self._waiting:
            raise IndexError("nobody waits")
        client, calls = self._waiting.popitem(last=False)
        self._number -= 1
        call = calls.popleft()
        if calls:
            self._waiting[client] = calls  # behind all others
        return call

    def take_back(self, client: str, call: T) -> bool:
        """Let the call wait no longer; False when it does not."""
        calls = self._waiting.get(client, deque())
        if call not in calls:
            return False
        calls.remove(call)
        self._number -= 1
        if not calls:
            del self._waiting[client]
        return True

    def crowd_out(self, client: str) -> T | None:
        """The newest call of the client that has the most waiting, if it has at least two more than this one."""
        if not self._waiting:
            return None
        longest = max(self._waiting, key=lambda one: len(self._waiting[one]))
        if len(self._waiting[longest]) < len(self._waiting.get(client, ())) + 2:
            return None
        self._number -= 1
        return self._waiting[longest].pop()


@dataclass(eq=False)
class _Call:
    client: str
    make: Callable[[], Any]
    future: Future[Any]
    since_s: float = field(default_factory=time.monotonic)
    waits: bool = True


class Lane:
    """A few threads for one kind of call, and a queue before them in which clients take turns.

    When as many wait as may, a client that has more waiting than others makes room for them.
    """

    def __init__(self, name: str, threads: int, max_waiting: int | None = None, max_wait_s: float = math.inf) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"tapehouse-{name}")
        self._threads = threads
        self._most = None if max_waiting is None else threads + max_waiting
        self._longest_s = max_wait_s
        self._name = name
        self._lock = threading.Lock()
        self._turns: Turns[_Call] = Turns()
        self._alone = threading.Lock()
        """Held by the call that runs; one that waits for longer than `_ALONE_S` runs beside it."""
        self._stopped = False
        self._takers = 0
        """Tasks of the pool that will each take the next call; at least as many as calls wait."""
        self._call_s = 0.01
        """How long a call took lately; says when to come again."""
        self._waited_s = 0.0
        """How long the call had waited whose turn came last."""
        self.pending = 0
        """Calls that run or wait; one that runs is among them until its thread is free, whoever still waits for it."""

    async def run(
        self,
        call: Callable[[], T],
        *,
        request: Request | None = None,
        client: str | None = None,
        admitted: bool = False,
        discard: Callable[[T], object] | None = None,
    ) -> T:
        """What the call returns. Raises `Overloaded` when too many wait; what was `admitted` before is never refused.

        It is the call of `client`, by default the one of `request`. When that one goes away, `ClientDisconnect` is
        raised and the call, unless it runs, is not made. What a call returns that nobody waits for any more goes to
        `discard`.
        """
        future = self.submit(call, client=client or client_of(request), admitted=admitted)
        presence = Presence() if request is None else request.scope.get(PRESENCE) or Presence()
        try:
            return await presence.during(asyncio.wrap_future(future))
        except BaseException:
            if not future.cancel() and discard is not None:
                future.add_done_callback(lambda done: done.exception() or discard(done.result()))
            raise

    def submit(self, call: Callable[[], T], *, client: str = "", admitted: bool = True) -> Future[T]:
        """Have the call made when its turn comes."""
        waits = _Call(client, call, Future())
        with self._lock:
            if self._stopped:
                raise Unavailable("the server stops")
            if not admitted and self._is_full():
                crowded = self._turns.crowd_out(client)
                if crowded is None:
                    raise self._overloaded()
            else:
                crowded = None
            self._turns.add(client, waits)
            self.pending += 1
            if self._takers < len(self._turns):
                self._pool.submit(self._take)
                self._takers += 1
        waits.future.add_done_callback(partial(self._ended, waits))
        if crowded is not None and crowded.future.set_running_or_notify_cancel():
            crowded.future.set_exception(self._overloaded())
        return waits.future

    def _take(self) -> None:
        with self._lock:
            self._takers -= 1
            if not len(self._turns):  # whoever this was called for waits no longer
                return
            call = self._turns.take()
            call.waits = False
            self._waited_s = time.monotonic() - call.since_s
        if not call.future.set_running_or_notify_cancel():
            return
        alone = self._alone.acquire(timeout=_ALONE_S)
        started_s = time.monotonic()
        try:
            result = call.make()
        except BaseException as exc:  # noqa: BLE001 - raised again where it is waited for
            call.future.set_exception(exc)
        else:
            call.future.set_result(result)
        finally:
            if alone:
                self._alone.release()
        self._note(time.monotonic() - started_s)

    def _note(self, taken_s: float) -> None:
        """A slow call among many is not what the others will take: it counts no more than a few of them."""
        usual_s = max(self._call_s, _BRIEF_S)
        self._call_s += (min(taken_s, _OUTLIER * usual_s) - self._call_s) / 16

    def _ended(self, call: _Call, _: Future[Any]) -> None:
        with self._lock:
            self.pending -= 1
            if call.waits:
                self._turns.take_back(call.client, call)

    def _is_full(self) -> bool:
        """Whether one more would be one too many, or would be answered when its client has long given up.

        The latter is a guess, and a poor one when a thousand come at once: the loop that takes them in keeps the
        interpreter from the threads, in which calls then seem slow. Until somebody has waited for a good part of the
        time, it must be several times too long.
        """
        if self._most is not None and self.pending >= self._most:
            return True
        shown = self._waited_s >= _SHOWN * self._longest_s
        return len(self._turns) > self._threads and self._wait_s() > self._longest_s * (1 if shown else _UNSURE)

    def _wait_s(self) -> float:
        """How long a call waits that comes now, by how long calls took lately."""
        return self.pending * self._call_s / self._threads

    def _overloaded(self) -> Overloaded:
        wait_s = min(max(1.0, self._wait_s()), _LONGEST_RETRY_S)
        return Overloaded(f"{self.pending:,} calls ({self._name}) run or wait already", retry_after_s=wait_s)

    def stop(self) -> None:
        """Drop what waits, and take nothing more."""
        with self._lock:
            self._stopped = True
            dropped = [self._turns.take() for _ in range(len(self._turns))]
        for call in dropped:
            call.future.cancel()

    def close(self) -> None:
        """Take nothing more, and wait for what was taken."""
        with self._lock:
            self._stopped = True
        self._pool.shutdown()


def client_of(request: Request | None) -> str:
    """Whose turn it is: that of a key, else of an address; all that come by the Unix socket are one."""
    if request is None:
        return ""
    named: str | None = request.scope.get(CLIENT)
    return named or (request.client.host if request.client else "")


class Workers:
    """All lanes of one server."""

    def __init__(self, settings: Settings) -> None:
        waiting, wait_s = settings.max_waiting_queries, settings.max_wait_s
        self.query = Lane("query", settings.max_concurrent_queries, waiting, wait_s)
        """Reads of rows and other short calls. A long answer takes a thread for one step at a time."""
        self.scan = Lane("scan", settings.max_concurrent_queries, waiting, wait_s)
        """Reads that may go through everything: coverage, aggregates, the list of symbols."""
        self.write = Lane("write", settings.max_concurrent_writes, waiting)
        self.ingest = Lane("ingest", settings.max_concurrent_writes, waiting)
        self.compact = Lane("compact", 1, waiting)
        self.metrics = Lane("metrics", 1, waiting)
        self.ready = Lane("ready", 1)
        self.closing = Lane("closing", 1)
        """Lets go of answers; what waits here is done even when the server stops."""

    @property
    def pending(self) -> int:
        """Calls of the store for clients, that run or wait."""
        return self.query.pending + self.scan.pending + self.write.pending

    def let_go(self, close: Callable[[], None]) -> None:
        """Close an answer in a thread, for one who cannot wait; what that raises is logged."""
        try:
            self.closing.submit(close).add_done_callback(_log_failure)
        except Unavailable:  # so late in a stop that the thread is gone: the caller's will do
            close()

    def close(self) -> None:
        """Drop what waits, wait for what runs."""
        lanes = (self.query, self.scan, self.write, self.ingest, self.compact, self.metrics, self.ready)
        for lane in lanes:
            lane.stop()
        for lane in (*lanes, self.closing):
            lane.close()


def _log_failure(future: Future[None]) -> None:
    if not future.cancelled() and (error := future.exception()):
        logger.error("closing an answer failed: %s", error, exc_info=error)


class Slots:
    """A number of things that may be open at once; used by one event loop only."""

    def __init__(self, most: int, refusal: str, retry_after_s: float) -> None:
        self._most = most
        self._refusal = refusal
        self._retry_after_s = retry_after_s
        self.taken = 0

    def take(self, number: int = 1) -> None:
        """Take so many, all or none; `Overloaded` when there are not enough left."""
        if self.taken + number > self._most:
            raise Overloaded(self._refusal, limit=self._most, retry_after_s=self._retry_after_s)
        self.taken += number

    def give_back(self, number: int = 1) -> None:
        """Give back what was taken."""
        self.taken -= number


class Readiness:
    """Whether the store answers: asked at most once a second, and once at a time, however many want to know."""

    def __init__(self, store: Store, lane: Lane) -> None:
        self._store = store
        self._lane = lane
        self._asking: asyncio.Task[Any] | None = None
        self._asked_s = -_READY_FOR_S
        """On the monotonic clock."""

    async def check(self) -> None:
        """Return when the store answers; raises what it raises, and `Unavailable` when it takes too long."""
        now_s = time.monotonic()
        if self._asking is None or (self._asking.done() and now_s - self._asked_s >= _READY_FOR_S):
            self._asked_s = now_s
            self._asking = asyncio.create_task(self._lane.run(self._store.stats))
            self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody may be waiting
        try:
            async with asyncio.timeout(_READY_WITHIN_S):
                await asyncio.shield(self._asking)
        except TimeoutError:
            raise Unavailable(f"the store has not answered within {_READY_WITHIN_S:g} s", retry_after_s=5.0) from None
