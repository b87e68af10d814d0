"""CSV, TSV and JSON lines, plain or compressed. Numbers are the shortest text that reads back to the same float64.

The same rows give the same bytes: nothing that is written says when it was.
"""

from __future__ import annotations

import gzip
import lzma
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, BinaryIO

import pyarrow as pa

from tapehouse.codec.encode import encode_csv, encode_lines

GZIP_LEVEL = 6
XZ_PRESET = 3
"""xz packs little more at higher ones, and takes several times as long."""
_WRITE_BYTES = 1 << 18
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)

Encode = Callable[[pa.Schema, Iterable[pa.RecordBatch]], Iterable[bytes]]
Compress = Callable[[BinaryIO, str], AbstractContextManager[Any]]


@contextmanager
def _plain(file: BinaryIO, name: str) -> Iterator[Any]:
    yield file


def _gzip(file: BinaryIO, name: str) -> AbstractContextManager[Any]:
    return gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0)


def _zstd(file: BinaryIO, name: str) -> AbstractContextManager[Any]:
    compressed: AbstractContextManager[Any] = pa.CompressedOutputStream(pa.PythonFile(file, mode="w"), "zstd")
    return compressed


def _xz(file: BinaryIO, name: str) -> AbstractContextManager[Any]:
    return lzma.LZMAFile(file, "wb", preset=XZ_PRESET)


@contextmanager
def _zip(file: BinaryIO, name: str) -> Iterator[Any]:
    """A zip with the one member that it is named for."""
    member = zipfile.ZipInfo(name.removesuffix(".zip"), _ZIP_EPOCH)
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = 0o644 << 16
    with zipfile.ZipFile(file, "w") as archive, archive.open(member, "w", force_zip64=True) as inside:
        yield inside


def _write(
    encode: Encode,
    compress: Compress,
    file: BinaryIO,
    name: str,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
) -> None:
    with compress(file, name) as out:
        for data in _joined(encode(schema, batches)):
            out.write(data)


def _joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes in pieces that are worth a call; a file of one symbol's days comes in many small ones."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _WRITE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


def _lines(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterable[bytes]:
    return encode_lines(batches)


_ENCODINGS: dict[str, Encode] = {
    "csv": encode_csv,
    "tsv": partial(encode_csv, delimiter="\t"),
    "jsonl": _lines,
}
_COMPRESSIONS: dict[str, Compress] = {"": _plain, ".gz": _gzip, ".zst": _zstd, ".xz": _xz, ".zip": _zip}

FORMATS = {
    f"{encoding}{compression}": partial(_write, encode, compress)
    for encoding, encode in _ENCODINGS.items()
    for compression, compress in _COMPRESSIONS.items()
}
"""Format -> what writes it."""
