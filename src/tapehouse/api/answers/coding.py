"""Content codings: gzip and zstd, of answers as they are made and of bodies piece by piece."""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterator
from contextlib import closing
from enum import StrEnum

import pyarrow as pa

from tapehouse.codec.encode import Sink
from tapehouse.errors import UnreadableFile

_GZIP_LEVEL = 1
"""JSON of bars becomes 15 % larger than at level 6, in a ninth of the time."""

_GZIP_WINDOW_BITS = 31
"""zlib's way to say gzip. It writes no time, so that the same bytes become the same bytes."""


class Coding(StrEnum):
    """How a body is compressed, by its name in HTTP."""

    IDENTITY = "identity"
    GZIP = "gzip"
    ZSTD = "zstd"

    @property
    def headers(self) -> dict[str, str]:
        """What says so."""
        return {} if self is Coding.IDENTITY else {"Content-Encoding": str(self)}


def choose(accept_encoding: str | None, *, only_if_asked: bool = False) -> Coding:
    """The coding of an answer to a request with that header.

    HTTP libraries name codings that their users never thought of. `only_if_asked` is for answers that some readers take
    from the wire as they come: those are coded when the header names `identity` too, and wants it less.
    """
    weights = dict(_weights(accept_encoding or ""))
    gzip = max((weights[name] for name in ("gzip", "x-gzip") if name in weights), default=weights.get("*", 0.0))
    coding, weight = max((Coding.ZSTD, weights.get("zstd", 0.0)), (Coding.GZIP, gzip), key=lambda one: one[1])
    identity = weights.get("identity")
    if weight == 0 or (only_if_asked and identity is None):
        return Coding.IDENTITY
    if identity is None or weight > identity or (weight == identity and not only_if_asked):
        return coding
    return Coding.IDENTITY


def _weights(header: str) -> Iterator[tuple[str, float]]:
    for part in header.split(","):
        name, *parameters = (each.strip().lower() for each in part.split(";"))
        weight = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        try:
            yield name, float(weight)
        except ValueError:
            yield name, 0.0


def compressed(pieces: Generator[bytes], coding: Coding) -> Generator[bytes]:
    """The pieces in that coding, as they come."""
    if coding is Coding.IDENTITY:
        return pieces
    return _gzipped(pieces) if coding is Coding.GZIP else _zstd(pieces)


def _gzipped(pieces: Generator[bytes]) -> Generator[bytes]:
    compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW_BITS)
    with closing(pieces):
        for piece in pieces:
            yield compressor.compress(piece)
    yield compressor.flush()


def _zstd(pieces: Generator[bytes]) -> Generator[bytes]:
    sink = Sink()
    # Arrow's, because Python has none before 3.14.
    stream = pa.CompressedOutputStream(pa.PythonFile(sink, mode="w"), "zstd")
    with closing(pieces):
        for piece in pieces:
            stream.write(piece)
            yield sink.taken()
    stream.close()
    yield sink.taken()


class Expanding:
    """A compressed body that is expanded step by step, so that its size can be watched."""

    def __init__(self, body: bytes | bytearray, coding: Coding) -> None:
        self._coding = coding
        self._stream = pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(body)), str(coding))

    def read(self, most: int) -> bytes:
        """At most so many of the next bytes; none at the end. `UnreadableFile` when it is damaged or cut off."""
        try:
            data: bytes = self._stream.read(most)
        except OSError as exc:
            raise UnreadableFile(f"the body is not {self._coding}: {exc}") from exc
        return data
