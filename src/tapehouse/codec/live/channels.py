"""Channels: what the log holds and a client subscribes to, and the columns of each.

`trades`, `quotes`, `bars.1m` (one for each interval) and `metrics` hold records of symbols. Bars of the log say whether
they are `final` (their time is over) and, when a late trade changed one that was, its `revision`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import pyarrow as pa

from tapehouse.errors import InvalidRequest, UnknownInterval
from tapehouse.model import SCHEMAS, Interval, Kind

METRICS = "metrics"
REJECTED = "rejected"
"""Records that were set aside; no client subscribes to it."""

METRIC_NAMES = (
    "last",
    "change",
    "open",
    "high",
    "low",
    "volume",
    "vwap",
    "trades",
    "ema",
    "volatility",
    "spread",
    "trade_rate",
    "imbalance",
)
"""The measures of `metrics`, all float64; null where not known. docs/reference/metrics.md has their formulas."""


class Channel(NamedTuple):
    """A channel by its parts; `str` gives its name."""

    name: str
    kind: Kind | None
    interval: Interval | None = None

    def __str__(self) -> str:
        return self.name


def bars(interval: Interval) -> str:
    """The name of the channel of bars of that interval."""
    return f"bars.{interval}"


@lru_cache(maxsize=64)
def parse_channel(name: str) -> Channel:
    """The channel of that name; `InvalidRequest` names those that there are."""
    if name in (Kind.TRADES, Kind.QUOTES):
        return Channel(name, Kind(name))
    if name == METRICS:
        return Channel(name, None)
    kind, _, interval = name.partition(".")
    if kind == Kind.BARS:
        try:
            return Channel(name, Kind.BARS, Interval.parse(interval))
        except UnknownInterval:
            pass
    raise InvalidRequest(
        f"unknown channel {name[:40]!r}; there are trades, quotes, metrics, and bars.1m: {' '.join(Interval)}",
        channel=name[:40],
    )


def _plain(field: pa.Field) -> pa.Field:
    return field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field


def _fields(name: str) -> Iterator[pa.Field]:
    """The columns beside the symbol and the source, which stand once in an entry's header."""
    channel = parse_channel(name)
    if channel.kind is None:
        yield SCHEMAS[Kind.TRADES].field("timestamp")
        yield from (pa.field(metric, pa.float64()) for metric in METRIC_NAMES)
        return
    # An ordinal is counted among all records that the store has, and so by who writes them there.
    elsewhere = ("symbol", "source", "ordinal")
    yield from (_plain(field) for field in SCHEMAS[channel.kind] if field.name not in elsewhere)
    if channel.kind is Kind.BARS:
        yield pa.field("revision", pa.int32())
        yield pa.field("final", pa.bool_())


@lru_cache(maxsize=64)
def body_schema(name: str) -> pa.Schema:
    """The columns of an entry of that channel: symbols as their places in the header, names as texts."""
    return pa.schema([pa.field("symbol", pa.int32(), nullable=False), *_fields(name)])
