"""A subscription: what it is owed, and what becomes of that while its client does not read. Without I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import StrEnum

from tapehouse.bus.base import Lost
from tapehouse.codec.live.channels import parse_channel
from tapehouse.codec.live.messages import EntryMessages, Variant
from tapehouse.model import Position
from tapehouse.stream.base import Delivery, Socket
from tapehouse.stream.conflation import Conflated
from tapehouse.stream.requests import Asked
from tapehouse.stream.routes import Routes
from tapehouse.times import format_time


class Phase(StrEnum):
    """Where it reads: stored history, the log, or what comes live; BEHIND while its client does not read at all."""

    HISTORY = "history"
    LOG = "log"
    LIVE = "live"
    BEHIND = "behind"
    OVER = "over"


class Subscription:
    """See `routes.Follower`. What it is owed next is in `frames`; `positions` say up to where it was sent all.

    While a client of a live subscription does not read, one that is lossless forgets what it is owed, since the log
    has it; others hold on to one flush of it, and merge or count what comes after that.
    """

    def __init__(self, asked: Asked, socket: Socket) -> None:
        self.asked, self.socket = asked, socket
        self.channels, self.symbols, self.patterns = asked.channels, asked.symbols, asked.patterns
        self.variant = Variant(socket.wire, socket.compressed, asked.id)
        self.frames: list[bytes] = []
        self._append: Callable[[bytes], None] = self.frames.append
        self.add: Callable[[bytes], None] | None = self._append
        self.phase = Phase.LOG
        self.positions: dict[int, Position] = {}
        self.sent = self.dropped = 0
        self._conflated = Conflated()
        self._missed: Counter[str] = Counter()

    @property
    def delivery(self) -> Delivery:
        """What happens when the client does not keep up."""
        return self.asked.delivery

    @property
    def held(self) -> bool:
        """Whether what comes is merged or counted instead of sent."""
        return self.add is None

    def hold(self, routes: Routes) -> None:
        """Merge or count what comes from now on."""
        routes.remove(self)
        self.add = None
        routes.add(self)

    def release(self, routes: Routes) -> None:
        """Send what comes from now on, after what was merged or counted meanwhile."""
        routes.remove(self)
        self.add = self._append
        routes.add(self)
        self.frames += [summary.frame(self.variant) for summary in self._conflated.take()]
        if self._missed:
            missed = dict(self._missed)
            self.dropped += sum(missed.values())
            self._missed.clear()
            self.frames.append(self.variant.event("gap", reason="slow", dropped=missed))

    def note(self, messages: EntryMessages, symbol: int) -> None:
        """See `routes.Follower`: merge or count the rows."""
        if self.delivery is Delivery.CONFLATE:
            self._conflated.note(messages, symbol)
        else:
            self._missed[messages.entry.channel] += messages.count(symbol)

    def gap(self, lost: Lost, since: int | None) -> bytes:
        """The event that says what the log has no more, and where stored records of that time can be fetched."""
        reason = "retention" if lost.after.epoch == lost.first.epoch else "lost"
        seen = self.asked.token.seen if self.asked.token is not None else 0
        start, end = (format_time(at) if at else None for at in (seen, since))
        span = "".join(f"&{name}={at}" for name, at in (("start", start), ("end", end)) if at)
        symbols = ",".join(self.symbols) or "*"
        channels = [parse_channel(name) for name in self.channels]
        fetch = [
            f"/v1/{channel.kind}?symbols={symbols}{f'&interval={channel.interval}' if channel.interval else ''}{span}"
            for channel in channels
            if channel.kind is not None
        ]
        return self.variant.event("gap", reason=reason, start=start, end=end, fetch=fetch)

    def take(self, *last: bytes) -> bytes:
        """All that it is owed, and what is to follow it."""
        data = b"".join((*self.frames, *last))
        self.frames.clear()
        self.sent += len(data)
        return data


class Group:
    """All conflated subscriptions of one interval: each topic is summed up once for all of them."""

    def __init__(self) -> None:
        self.routes = Routes()
        self.subscriptions: dict[Subscription, None] = {}
        self._conflated = Conflated()

    def feed(self, messages: EntryMessages) -> None:
        """Add an entry to what waits."""
        for place, symbol in enumerate(messages.entry.symbols):
            topic = self.routes.topic(messages.entry.channel, symbol)
            if topic is not None:
                if topic.frames:
                    self._conflated.note(messages, place)
                for follower in topic.followers:
                    follower.note(messages, place)

    def tick(self) -> None:
        """Give all of them what waits."""
        for summary in self._conflated.take():
            topic = self.routes.topic(summary.channel, summary.symbol)
            if topic is not None:
                for variant, adds in topic.frames.items():
                    frame = summary.frame(variant)
                    for add in adds:
                        add(frame)
