"""A file that takes its name only when it is whole and on the disk."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec
import pyarrow as pa

from tapehouse.export.faults import faults
from tapehouse.export.formats import DATABASES, STREAMS

PART = ".tapehouse-part"
"""How the name of a file ends until it is whole; it begins with a dot, so that nobody takes it for data."""
_READ_BYTES = 1 << 20


class Written(msgspec.Struct, frozen=True):
    """A file that is whole, under its temporary name."""

    bytes: int
    sha256: str


class Sink(io.RawIOBase):
    """Takes bytes to a file, and counts and hashes them as they pass."""

    def __init__(self, file: io.BufferedWriter) -> None:
        super().__init__()
        self._file = file
        self._digest = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._digest.update(view)
        self._file.write(view)
        self.size += len(view)
        return len(view)

    def tell(self) -> int:
        return self.size

    def written(self) -> Written:
        """What there is of it."""
        return Written(self.size, self._digest.hexdigest())


def part_of(path: Path) -> Path:
    """The temporary name of a file."""
    return path.with_name(f".{path.name}{PART}")


def write_part(path: Path, format_: str, table: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Written:
    """Write the rows under the path's temporary name, durably; `table` is what a database's table is called.

    Raises `StoreFull`, `StoreReadOnly` or `StoreError`, and what the batches raise; then nothing is left of it.
    """
    part = part_of(path)
    done = False
    try:
        with faults(str(path)):
            part.unlink(missing_ok=True)
            written = _encode(path, part, format_, table, schema, batches)
        done = True
        return written
    finally:
        if not done:
            for left in (part, part.with_name(f"{part.name}.wal"), part.with_name(f"{part.name}-journal")):
                left.unlink(missing_ok=True)


def _encode(
    path: Path, part: Path, format_: str, table: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> Written:
    if format_ in DATABASES:
        DATABASES[format_](part, table, schema, batches)
        sync(part)
        return digest_of(part)
    with part.open("wb") as file:
        sink = Sink(file)
        STREAMS[format_](cast(BinaryIO, sink), path.name, schema, batches)
        file.flush()
        os.fsync(file.fileno())
    return sink.written()


def digest_of(path: Path) -> Written:
    """Size and hash of a file that is there."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while data := file.read(_READ_BYTES):
            digest.update(data)
            size += len(data)
    return Written(size, digest.hexdigest())


def write_text(path: Path, data: bytes) -> None:
    """A small file, replaced as a whole and durable when this returns."""
    part = part_of(path)
    with faults(str(path)):
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            sync(path.parent)
        finally:
            part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """fsync a file or a folder."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
