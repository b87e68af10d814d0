"""Which files are meant, and their bytes as text in UTF-8, decompressed piece by piece."""

from __future__ import annotations

import codecs
import glob
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tapehouse.bulk.base import Dialect
from tapehouse.errors import InvalidRequest, NotFound, UnreadableFile

TEXT_SUFFIXES = (".csv", ".txt", ".tsv")
SUFFIXES = (*TEXT_SUFFIXES, *(f"{suffix}.gz" for suffix in TEXT_SUFFIXES), ".zip", ".parquet")
DATA_FOLDER_MARK = "owner.lock"
"""A folder with this file is a store's: its archive and its quarantine are not loaded by the way."""
PIECE_BYTES = 1 << 21

Pieces = Iterator[tuple[bytes, int]]
"""Bytes, and how far the file as it is on disk was read for them."""


def find(paths: Sequence[str | Path]) -> list[Path]:
    """The files that are meant by files, folders (searched for what can be loaded) and globs, each once, in order."""
    found: dict[Path, None] = {}
    for path in paths:
        found.update(dict.fromkeys(_find(str(path))))
    return list(found)


def _find(path: str) -> list[Path]:
    if Path(path).is_dir():
        ours = {mark.parent for mark in Path(path).rglob(DATA_FOLDER_MARK)}
        found = (file for file in Path(path).rglob("*") if ours.isdisjoint(file.parents))
        files = sorted(file for file in found if _is_loadable(file, Path(path)))
        if not files:
            raise NotFound(f"folder {path} has no file to load; looked for {' '.join(SUFFIXES)}", path=path)
        return files
    if Path(path).exists():
        return [Path(path)]
    if not any(character in path for character in "*?["):
        raise NotFound(f"there is no file or folder {path}", path=path)
    matches = sorted(glob.glob(path, recursive=True))
    files = [Path(match) for match in matches if Path(match).is_file()]
    folders = [] if "**" in path else [match for match in matches if Path(match).is_dir()]
    files += [file for folder in folders for file in _find(folder)]
    if not files:
        raise NotFound(f"no file matches {path}", path=path)
    return files


def _is_loadable(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and file.name.lower().endswith(SUFFIXES) and file.is_file()


def compression_of(path: Path) -> str | None:
    """`gzip`, `zip`, `parquet` or None, by the first bytes and not by the name."""
    with reading(path), path.open("rb") as file:
        start = file.read(4)
    if start[:2] == b"\x1f\x8b":
        return "gzip"
    if start == b"PK\x03\x04" or start == b"PK\x05\x06":
        return "zip"
    return "parquet" if start == b"PAR1" else None


def members_of(path: Path) -> tuple[list[zipfile.ZipInfo], list[str]]:
    """The members of a zip file that can be loaded, and the names of the others."""
    with reading(path), zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
    infos = [info for info in infos if not any(part[:1] in "._" for part in Path(info.filename).parts)]
    taken = [info for info in infos if info.filename.lower().endswith(TEXT_SUFFIXES)] or infos[:1]
    return taken, [info.filename for info in infos if info not in taken]


def text_pieces(
    path: Path, member: str | None, compression: str | None, dialect: Dialect, piece_bytes: int = PIECE_BYTES
) -> Pieces:
    """The file's text in UTF-8, lines ended by LF, no byte-order mark; `UnreadableFile` where it cannot be read on."""
    pieces = raw_pieces(path, member, compression, piece_bytes)
    pieces = _without_mark(pieces) if dialect.encoding == "utf-8" else _transcoded(pieces, dialect.encoding)
    return _with_newlines(pieces) if dialect.returns else pieces


def last_bytes(path: Path, count: int) -> bytes:
    """The end of an uncompressed file."""
    with reading(path), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - count))
        return file.read()


def raw_pieces(path: Path, member: str | None, compression: str | None, piece_bytes: int = PIECE_BYTES) -> Pieces:
    """The file's bytes, decompressed."""
    with reading(path):
        if compression == "zip":
            yield from _zip_pieces(path, member or "", piece_bytes)
        elif compression == "gzip":
            yield from _gzip_pieces(path, piece_bytes)
        else:
            yield from _plain_pieces(path, piece_bytes)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """The one place in which the errors of files and archives become `UnreadableFile`."""
    try:
        yield
    except OSError as exc:
        raise UnreadableFile(f"{path.name} cannot be read: {exc.strerror or exc}", path=str(path)) from exc
    except EOFError as exc:
        raise UnreadableFile(f"{path.name} is cut off: {exc}", path=str(path)) from exc
    except (zlib.error, zipfile.BadZipFile, NotImplementedError) as exc:
        raise UnreadableFile(f"{path.name} is damaged: {exc}", path=str(path)) from exc


def _plain_pieces(path: Path, piece_bytes: int) -> Pieces:
    done = 0
    with path.open("rb") as file:
        while piece := file.read(piece_bytes):
            done += len(piece)
            yield piece, done


def _gzip_pieces(path: Path, piece_bytes: int) -> Pieces:
    """Like gzip.open, but whatever comes before a cut is given before the error is raised."""
    inflate = zlib.decompressobj(wbits=31)
    for piece, done in _plain_pieces(path, piece_bytes):
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


def _zip_pieces(path: Path, member: str, piece_bytes: int) -> Pieces:
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
        if info.flag_bits & 1:
            raise UnreadableFile(f"{member} in {path.name} is encrypted; unpack it first", path=str(path))
        done = 0
        with archive.open(info) as file:
            while piece := file.read(piece_bytes):
                done += len(piece)
                yield piece, min(info.compress_size, int(done * info.compress_size / max(info.file_size, 1)))


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
