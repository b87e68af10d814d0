"""WebSocket frames of a server (RFC 6455): made once, written to many."""

from __future__ import annotations

import zlib

TEXT = 0x81
BINARY = 0x82
CLOSE = 0x88
_COMPRESSED = 0x40
_WORTH_BYTES = 128
"""Less than that is not made smaller."""
WINDOW_BITS = 12
"""Of the compression of messages, which starts anew with each (RFC 7692, `server_no_context_takeover`)."""
_FLUSHED = b"\x00\x00\xff\xff"


def frame(opcode: int, payload: bytes) -> bytes:
    """The whole message as one frame; `opcode` with the bit that says so."""
    size = len(payload)
    if size < 126:
        return bytes((opcode, size)) + payload
    if size < 65_536:
        return bytes((opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((opcode, 127)) + size.to_bytes(8, "big") + payload


def deflated(opcode: int, payload: bytes) -> bytes:
    """The same, compressed by itself, so that all who take compressed messages can be sent it."""
    if len(payload) < _WORTH_BYTES:
        return frame(opcode, payload)
    compressor = zlib.compressobj(1, zlib.DEFLATED, -WINDOW_BITS)
    packed = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return frame(opcode | _COMPRESSED, packed.removesuffix(_FLUSHED))


def close(code: int, reason: str) -> bytes:
    """A close frame; the reason is cut off at what one holds."""
    return frame(CLOSE, code.to_bytes(2, "big") + reason.encode()[:123].decode("utf-8", "ignore").encode())
