"""The contract of streams: what a connection gives the hub, and what the hub does for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum, StrEnum
from typing import Any, Protocol

import msgspec

from tapehouse.codec.live.messages import Wire


class Delivery(StrEnum):
    """What happens when a client does not keep up: nothing is lost, the newest counts, or what is lost is counted."""

    LOSSLESS = "lossless"
    CONFLATE = "conflate"
    DROP = "drop"


class CloseCode(IntEnum):
    """Why this server closes a connection; the reason of the close frame says what, and the position where it can."""

    GOING_AWAY = 1012
    POLICY = 1008
    TOO_LARGE = 1009
    BAD_DATA = 1007
    STALLED = 4008
    UNAUTHENTICATED = 4001
    TOO_MANY = 4029


class StreamLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a client may have."""

    subscriptions: int = 100
    symbols: int = 10_000
    outbox_bytes: int = 1 << 20
    stall_s: float = 60.0
    operations_per_s: float = 50.0
    heartbeat_s: float = 15.0


class Socket(Protocol):
    """A connection as the hub sees it. All calls are made in the event loop."""

    @property
    def wire(self) -> Wire:
        """How its messages are written."""

    @property
    def compressed(self) -> bool:
        """Whether it takes compressed messages."""

    def write(self, data: bytes) -> None:
        """Send whole frames; never blocks."""

    @property
    def pending(self) -> int:
        """Bytes that wait for the client to read."""

    @property
    def reads(self) -> bool:
        """Whether the client keeps up with what is written; when it does again, `on_writable`'s function is called."""

    def on_writable(self, call: Callable[[], None]) -> None:
        """Have a function called whenever the client has read what waited."""

    def close(self, code: int, reason: str) -> None:
        """Send what waits and a close frame, and close; soon, whether or not the client reads."""


class Session(Protocol):
    """One client's side of the hub."""

    @property
    def authenticated(self) -> bool:
        """Whether it needs no key, or has sent one."""

    def receive(self, message: str | bytes) -> None:
        """Do what a message of the client asks for; whatever is wrong with it is answered with an `error` event."""

    def close(self) -> None:
        """Forget the client: it is gone."""


class Streams(Protocol):
    """The hub, to those who have connections."""

    def open(self, socket: Socket, *, authenticated: bool = True) -> Session:
        """Begin a session; who is not `authenticated` has to send a key before anything else."""

    def stats(self) -> Mapping[str, Any]:
        """Clients, subscriptions, rates and lags, for people and metrics."""
