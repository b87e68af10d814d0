"""The contract of record: how far the store has come with the log, for those who read both."""

from __future__ import annotations

from typing import Protocol

import msgspec

from tapehouse.errors import InvalidData
from tapehouse.model import Position


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What the recorder did since it started; `error` is why it does not get on, `since` since when (UTC ns)."""

    positions: dict[int, Position] = {}
    rows: int = 0
    commits: int = 0
    set_aside: int = 0
    lost: int = 0
    error: str | None = None
    since: int | None = None


class Records(Protocol):
    """Writes what the log has to the store."""

    def progress(self) -> Progress:
        """How far it has come."""

    def wait(self, partition: int, position: Position, timeout_s: float) -> bool:
        """Wait until the store has everything of a partition up to that position; whether it has."""


def encode_position(position: Position) -> bytes:
    """The position as the store keeps it."""
    return f"{position.epoch}:{position.offset}".encode()


def decode_position(data: bytes) -> Position:
    """The position that was kept; `InvalidData` for anything else."""
    try:
        epoch, offset = map(int, data.split(b":"))
    except ValueError as exc:
        raise InvalidData(f"{data[:40]!r} is no position of the log") from exc
    return Position(epoch, offset)
