"""The bytes of files as text in UTF-8, decompressed piece by piece; and what their first bytes say that they are."""

from __future__ import annotations

import codecs
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import msgspec
import pyarrow as pa

from tapehouse.bulk.base import Dialect, Fingerprint, Format
from tapehouse.errors import InvalidRequest, UnreadableFile

PIECE_BYTES = 1 << 21
END_BYTES = 1 << 14
MAX_EXPANSION = 200
"""How many times its size a compressed file may become; market data as text becomes 3 to 30 times as large."""
FREE_BYTES = 64 << 20
"""So much may come out of a compressed file however small it is."""
MAX_MEMBERS = 100_000
_XZ_MEMORY_BYTES = 256 << 20
_ZSTD_READ_BYTES = 1 << 13

Pieces = Iterator[tuple[bytes, int]]
"""Bytes, and how far the file as it is on disk was read for them."""


class Look(msgspec.Struct, frozen=True):
    """What one look at a file gives: its first and last bytes, and which content that is."""

    head: bytes
    tail: bytes
    fingerprint: Fingerprint


def look_at(path: Path) -> Look:
    """The first 16 KB of a file and the last 16 KB of what comes after them; `UnreadableFile` when it cannot be."""
    with reading(path), path.open("rb", buffering=0) as file:
        stat = os.fstat(file.fileno())
        head = file.read(END_BYTES)
        tail = b""
        if stat.st_size > len(head):
            file.seek(max(len(head), stat.st_size - END_BYTES))
            tail = file.read(END_BYTES)
    digest = blake2b(head + tail, digest_size=16).hexdigest()
    return Look(head, tail, Fingerprint(size=stat.st_size, mtime_ns=stat.st_mtime_ns, digest=digest))


def container_of(head: bytes) -> tuple[Format, str | None]:
    """The format and the compression, by the first bytes and not by the name; text of any kind is CSV here."""
    for start, compression in _COMPRESSED:
        if head.startswith(start):
            return Format.CSV, compression
    if head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F:  # a frame that zstd skips
        return Format.CSV, "zstd"
    for start, format_ in _TYPED:
        if head.startswith(start):
            return format_, None
    if head[8:12] == b"DUCK":
        return Format.DUCKDB, None
    return Format.CSV, None


_COMPRESSED = (
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\x00", "xz"),
)
_TYPED = (
    (b"PAR1", Format.PARQUET),
    (b"ARROW1", Format.ARROW),
    (b"FEA1", Format.ARROW),
    (b"\xff\xff\xff\xff", Format.ARROW_STREAM),
    (b"SQLite format 3\x00", Format.SQLITE),
)


def members_of(path: Path, suffixes: tuple[str, ...]) -> tuple[list[zipfile.ZipInfo], list[str]]:
    """The members of a zip file that can be loaded, and the names of the others."""
    with reading(path):
        infos = [info for info in _archive(path).infolist() if not info.is_dir()]
    if len(infos) > MAX_MEMBERS:
        raise UnreadableFile(f"{path.name} has {len(infos):,} members; at most {MAX_MEMBERS:,} are taken")
    infos = [info for info in infos if not any(part[:1] in "._" for part in Path(info.filename).parts)]
    taken = [info for info in infos if info.filename.lower().endswith(suffixes)] or infos[:1]
    return taken, [info.filename for info in infos if info not in taken]


def check_member(path: Path, info: zipfile.ZipInfo) -> None:
    """`UnreadableFile` for a member that is encrypted, is itself a zip, or expands beyond all measure."""
    if info.flag_bits & 1:
        raise UnreadableFile(f"{info.filename} in {path.name} is encrypted; unpack it first", path=str(path))
    if info.filename.lower().endswith(".zip"):
        raise UnreadableFile(f"{info.filename} is a zip in a zip, which is not opened; unpack it first", path=str(path))
    _check_expansion(path, info.file_size, info.compress_size)


def _check_expansion(path: Path, produced: int, read: int) -> None:
    if produced > FREE_BYTES and produced > MAX_EXPANSION * max(read, 1):
        raise UnreadableFile(
            f"{path.name} expands to more than {MAX_EXPANSION} times its size ({read:,} bytes become {produced:,}), "
            "as no market data does; unpack it first if it is meant",
            path=str(path),
        )


def text_pieces(
    path: Path,
    member: str | None,
    compression: str | None,
    dialect: Dialect,
    piece_bytes: int = PIECE_BYTES,
    limit: int | None = None,
) -> Pieces:
    """The file's text in UTF-8, lines ended by LF, no byte-order mark; `UnreadableFile` where it cannot be read on.

    Of the file as it is on disk only the first `limit` bytes are read.
    """
    pieces = raw_pieces(path, member, compression, piece_bytes, limit)
    pieces = _without_mark(pieces) if dialect.encoding == "utf-8" else _transcoded(pieces, dialect.encoding)
    return _with_newlines(pieces) if dialect.returns else pieces


def raw_pieces(
    path: Path,
    member: str | None,
    compression: str | None,
    piece_bytes: int = PIECE_BYTES,
    limit: int | None = None,
) -> Pieces:
    """The file's bytes, decompressed; `UnreadableFile` where they cannot be, or expand beyond all measure."""
    with reading(path):
        if compression is None:
            yield from _plain_pieces(path, piece_bytes, limit)
            return
        produced = 0
        for piece, done in _decompressed(path, member, compression, piece_bytes, limit):
            produced += len(piece)
            _check_expansion(path, produced, done)
            yield piece, done


def _decompressed(path: Path, member: str | None, compression: str, piece_bytes: int, limit: int | None) -> Pieces:
    if compression == "zip":
        return _zip_pieces(path, member or "", piece_bytes)
    if compression == "zstd":
        return _zstd_pieces(path, piece_bytes)
    packed = _plain_pieces(path, piece_bytes, limit)
    return _gzip_pieces(packed, piece_bytes) if compression == "gzip" else _xz_pieces(packed, piece_bytes)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """The one place in which the errors of files and archives become `UnreadableFile`."""
    try:
        yield
    except OSError as exc:
        raise UnreadableFile(f"{path.name} cannot be read: {exc.strerror or exc}", path=str(path)) from exc
    except EOFError as exc:
        raise UnreadableFile(f"{path.name} is cut off: {exc}", path=str(path)) from exc
    except (zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError) as exc:
        raise UnreadableFile(f"{path.name} is damaged: {exc}", path=str(path)) from exc


def _plain_pieces(path: Path, piece_bytes: int, limit: int | None) -> Pieces:
    done = 0
    with path.open("rb") as file:
        while piece := file.read(piece_bytes if limit is None else min(piece_bytes, limit - done)):
            done += len(piece)
            yield piece, done
    if limit is not None and done < limit:
        raise EOFError(f"it had {limit:,} bytes when it was looked at, and now has {done:,}")


def _gzip_pieces(packed: Pieces, piece_bytes: int) -> Pieces:
    """Like gzip.open, but whatever comes before a cut is given before the error is raised."""
    inflate = zlib.decompressobj(wbits=31)
    for piece, done in packed:
        rest = piece
        while rest:
            if inflate.eof:
                rest = rest.lstrip(b"\0")
                if not rest:
                    break
                inflate = zlib.decompressobj(wbits=31)
            yield inflate.decompress(rest, piece_bytes), done
            rest = inflate.unconsumed_tail or inflate.unused_data
    if not inflate.eof:
        raise EOFError("the gzip stream has no end")


def _xz_pieces(packed: Pieces, piece_bytes: int) -> Pieces:
    """Stream after stream, as `lzma.open` reads them, with a limit to the memory that a stream may ask for."""
    unpack = lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES)
    for piece, done in packed:
        rest = piece
        while rest or not (unpack.needs_input or unpack.eof):
            if unpack.eof:
                rest = rest.lstrip(b"\0")
                if not rest:
                    break
                unpack = lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES)
            yield unpack.decompress(rest, piece_bytes), done
            rest = unpack.unused_data if unpack.eof else b""
    if not unpack.eof:
        raise EOFError("the xz stream has no end")


def _zstd_pieces(path: Path, piece_bytes: int) -> Pieces:
    """Small reads, so that little of what comes before damage is lost with it."""
    with pa.OSFile(str(path)) as packed, pa.CompressedInputStream(packed, "zstd") as stream:
        held: list[bytes] = []
        try:
            while piece := stream.read(_ZSTD_READ_BYTES):
                held.append(piece)
                if len(held) * _ZSTD_READ_BYTES >= piece_bytes:
                    yield b"".join(held), packed.tell()
                    held = []
        except OSError:
            yield b"".join(held), packed.tell()
            raise
        yield b"".join(held), packed.tell()


def _zip_pieces(path: Path, member: str, piece_bytes: int) -> Pieces:
    archive = _archive(path)
    info = archive.getinfo(member)
    check_member(path, info)
    done = 0
    with archive.open(info) as file:
        while piece := file.read(piece_bytes):
            done += len(piece)
            yield piece, min(info.compress_size, int(done * info.compress_size / max(info.file_size, 1)))


def _archive(path: Path) -> zipfile.ZipFile:
    """The zip file, open; its list of members is read once for all of them."""
    stat = path.stat()
    return _opened_archive(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=2)
def _opened_archive(path: Path, size: int, mtime_ns: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def _without_mark(pieces: Pieces) -> Pieces:
    start, marked = b"", True
    for piece, done in pieces:
        if marked and len(start + piece) < len(codecs.BOM_UTF8):
            start += piece
            continue
        yield ((start + piece).removeprefix(codecs.BOM_UTF8) if marked else piece), done
        start, marked = b"", False
    if start:
        yield start, len(start)


def _with_newlines(pieces: Pieces) -> Pieces:
    for piece, done in pieces:
        yield piece.replace(b"\r", b"\n"), done


def _transcoded(pieces: Pieces, encoding: str) -> Pieces:
    """A byte that the encoding does not have becomes `\\xNN`, which no field takes, so that its row is quarantined."""
    decoder = decoder_of(encoding)
    for piece, done in pieces:
        yield decoder.decode(piece).encode(), done
    yield decoder.decode(b"", final=True).encode(), done


def decoder_of(encoding: str) -> codecs.IncrementalDecoder:
    """`InvalidRequest` for an encoding that Python does not know."""
    try:
        return codecs.getincrementaldecoder(encoding)(errors="backslashreplace")
    except LookupError as exc:
        raise InvalidRequest(f"unknown encoding {encoding!r}; expected a name such as utf-8, utf-16, cp1252") from exc
