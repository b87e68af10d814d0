"""Resume tokens: where a client is, in a text that means nothing to it.

In the log a token has a position for each partition, and when the newest entry up to there was taken; in history, the
time from which on it goes on.
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from tapehouse.errors import InvalidToken
from tapehouse.model import Position

PREFIX = "at_"
VERSION = 1


class Token(msgspec.Struct, frozen=True, array_like=True):
    """A place in a stream: in history when `history` is a time (UTC nanoseconds), else in the log."""

    version: int = VERSION
    positions: dict[int, tuple[int, int]] = {}
    seen: int = 0
    history: int | None = None

    def log(self) -> dict[int, Position]:
        """The positions, by partition."""
        return {partition: Position(*at) for partition, at in self.positions.items()}


def token_of(positions: dict[int, Position], seen: int = 0) -> str:
    """The token of positions in the log."""
    return encode_token(Token(VERSION, {p: (at.epoch, at.offset) for p, at in positions.items()}, seen))


def encode_token(token: Token) -> str:
    """The token as a text."""
    data = msgspec.msgpack.encode(token)
    check = binascii.crc32(data).to_bytes(4, "big")
    return PREFIX + base64.urlsafe_b64encode(check + data).decode().rstrip("=")


def decode_token(text: str) -> Token:
    """The token that a text is; `InvalidToken` for anything else."""
    body = text.removeprefix(PREFIX)
    try:
        raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
        if binascii.crc32(raw[4:]).to_bytes(4, "big") != raw[:4]:
            raise InvalidToken("this position was cut off or changed", parameter="from")
        token = msgspec.msgpack.decode(raw[4:], type=Token)
    except (binascii.Error, ValueError, msgspec.MsgspecError) as exc:
        raise InvalidToken("this is no position that this server gave", parameter="from") from exc
    if token.version > VERSION:
        raise InvalidToken("this position was given by a newer version of the server", parameter="from")
    return token
