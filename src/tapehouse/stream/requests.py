"""What a client may say, and what is wrong with what it says. Pure."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tapehouse.codec.live.channels import parse_channel
from tapehouse.codec.live.messages import Wire
from tapehouse.codec.live.tokens import PREFIX, Token, decode_token
from tapehouse.errors import InvalidRequest, LimitExceeded
from tapehouse.model import SECOND_NS, check_symbol
from tapehouse.stream.base import Delivery, StreamLimits
from tapehouse.times import parse_bound

Name = Annotated[str, Meta(min_length=1, max_length=64)]


class Subscribe(msgspec.Struct, tag_field="op", tag="subscribe", forbid_unknown_fields=True, rename={"start": "from"}):
    """Follow topics. `start` (`from`) is now, snapshot, a time or a position."""

    channels: list[str]
    symbols: list[str]
    id: Name = "1"
    start: str | int = "now"
    delivery: Delivery = Delivery.LOSSLESS
    interval_ms: Annotated[int, Meta(ge=10, le=60_000)] | None = None


class Unsubscribe(msgspec.Struct, tag_field="op", tag="unsubscribe", forbid_unknown_fields=True):
    """Follow a subscription's topics no longer."""

    id: Name = "1"


class List(msgspec.Struct, tag_field="op", tag="list", forbid_unknown_fields=True):
    """Which subscriptions there are."""


class Ping(msgspec.Struct, tag_field="op", tag="ping", forbid_unknown_fields=True):
    """Answered with `pong` and the same `data`."""

    data: Annotated[str, Meta(max_length=128)] | None = None


class Auth(msgspec.Struct, tag_field="op", tag="auth", forbid_unknown_fields=True):
    """The API key, from those who cannot send headers."""

    key: str


Operation = Subscribe | Unsubscribe | List | Ping | Auth

_JSON = msgspec.json.Decoder(Operation)
_MSGPACK = msgspec.msgpack.Decoder(Operation)


def decode_operation(message: str | bytes, wire: Wire) -> Operation:
    """What a message asks for; `InvalidRequest` says what is wrong with it."""
    if isinstance(message, str) != (wire is Wire.JSON):
        got, expected = ("text", "binary msgpack") if isinstance(message, str) else ("binary", "text JSON")
        raise InvalidRequest(f"a {got} message came on a connection of {wire}, where {expected} is expected")
    try:
        operation: Operation = _MSGPACK.decode(message) if isinstance(message, bytes) else _JSON.decode(message)
        return operation
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        reason = str(exc).replace("`start`", "`from`")
        raise InvalidRequest(f"this message is not understood: {reason}") from exc


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription that makes sense. Of `token`, `since` (UTC nanoseconds) and `snapshot` at most one is given."""

    id: str
    channels: tuple[str, ...]
    symbols: tuple[str, ...]
    patterns: tuple[str, ...]
    delivery: Delivery
    interval_s: float
    token: Token | None = None
    since: int | None = None
    snapshot: bool = False


CONFLATE_S = 0.25


def check_subscribe(asked: Subscribe, limits: StreamLimits) -> Asked:
    """The subscription; `InvalidRequest`, `InvalidSymbol`, `InvalidTime` or `LimitExceeded` say what is wrong."""
    if not asked.channels or not asked.symbols:
        raise InvalidRequest("a subscription names at least one channel and one symbol (`*` is all of them)")
    if len(asked.symbols) * len(asked.channels) > limits.symbols:
        raise LimitExceeded(
            f"{len(asked.symbols):,} symbols on {len(asked.channels)} channels; a subscription may have "
            f"{limits.symbols:,} topics: use a pattern, or `*`",
            limit=limits.symbols,
            parameter="symbols",
        )
    if asked.interval_ms is not None and asked.delivery is not Delivery.CONFLATE:
        raise InvalidRequest("interval_ms is for delivery conflate", parameter="interval_ms")
    channels = tuple(dict.fromkeys(parse_channel(name).name for name in asked.channels))
    names = tuple(dict.fromkeys(asked.symbols))
    patterns = tuple(name for name in names if "*" in name)
    for pattern in patterns:
        check_symbol(pattern.replace("*", "") or "all")
    token, since = _start(asked.start)
    return Asked(
        id=asked.id,
        channels=channels,
        symbols=tuple(check_symbol(name) for name in names if "*" not in name),
        patterns=patterns,
        delivery=asked.delivery,
        interval_s=CONFLATE_S if asked.interval_ms is None else asked.interval_ms / 1_000,
        token=token,
        since=since,
        snapshot=asked.start == "snapshot",
    )


def _start(start: str | int) -> tuple[Token | None, int | None]:
    if start in ("now", "snapshot"):
        return None, None
    if isinstance(start, str) and start.startswith(PREFIX):
        token = decode_token(start)
        return (token, None) if token.history is None else (None, token.history)
    bound = parse_bound(str(start), "from")
    return None, bound if isinstance(bound, int) else _midnight(bound)


def _midnight(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * SECOND_NS


def shown(asked: Asked) -> dict[str, Any]:
    """A subscription as the client is told of it."""
    conflated = {"interval_ms": round(asked.interval_s * 1_000)} if asked.delivery is Delivery.CONFLATE else {}
    symbols = [*asked.symbols, *asked.patterns]
    return {"channels": list(asked.channels), "symbols": symbols, "delivery": str(asked.delivery), **conflated}
