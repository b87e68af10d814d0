"""How far an export is, kept beside its files until the manifest says that all of it is there.

The file `UNFINISHED` has a line for what is exported, then one for each file, written and synced after the file itself
and before it takes its name; so a file that has its name without a line here is not ours. Whoever writes to the folder
holds a lock on it, which the kernel lets go of when the writer dies, however it dies.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import msgspec

from tapehouse.codec.content import Sum
from tapehouse.errors import Conflict, NotFound
from tapehouse.export.base import MANIFEST, UNFINISHED, Existing, ExportOptions, FileEntry, Manifest, series_name
from tapehouse.export.faults import faults
from tapehouse.export.files import PART, part_of, sync, write_text


class Header(msgspec.Struct, frozen=True, kw_only=True, tag="export"):
    """What is exported, as of which commit. One that `overwrites` may replace any file; `replaces` are those of an
    older export in the folder, which go at the end. `names` are those of symbols that need one of their own
    (`names.distinct`)."""

    id: str
    tapehouse: str
    created: str
    commit: int
    recorded: str | None
    options: ExportOptions
    formula: str | None
    overwrites: bool = False
    replaces: tuple[str, ...] = ()
    names: dict[str, str] = {}


class Entry(msgspec.Struct, frozen=True, kw_only=True, tag="file"):
    """A file that is whole, and the hash of its rows by symbol."""

    file: FileEntry
    content: dict[str, Sum] = {}


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """Symbols of a series of which no file is missing any more."""

    series: str
    symbols: tuple[str, ...]


Line = Header | Entry | Done
_decode = msgspec.json.Decoder(Line).decode


class Journal:
    """The journal of an export that this process writes; all methods may be called from any thread."""

    def __init__(
        self,
        folder: Path,
        fd: int,
        header: Header,
        entries: Iterable[Entry] = (),
        done: Iterable[tuple[str, str]] = (),
        damaged: Iterable[str] = (),
    ) -> None:
        """`damaged` are files that were whole, and are not what they were any more."""
        self.folder, self.header = folder, header
        self._fd = fd
        self._lock = threading.Lock()
        self._entries = {entry.file.path: entry for entry in entries}
        self._done, self._damaged = set(done), set(damaged)

    @property
    def entries(self) -> list[Entry]:
        """The files that are whole, by path."""
        with self._lock:
            return [self._entries[path] for path in sorted(self._entries)]

    def has(self, path: str) -> bool:
        """Whether that file is whole."""
        with self._lock:
            return path in self._entries

    def is_done(self, series: str, symbol: str) -> bool:
        """Whether all files of a symbol are whole."""
        return (series, symbol) in self._done

    def check_free(self, path: str) -> None:
        """Raise `Conflict` when a file of that name is there that is not this export's to replace."""
        target = self.folder / path
        if target.exists() and not self.header.overwrites and path not in self._damaged:
            raise Conflict(f"{target} is there already; --overwrite replaces it, or export elsewhere", file=str(target))

    def add(self, entry: Entry) -> None:
        """Note that a file is whole, durably, and give it its name."""
        target = self.folder / entry.file.path
        with self._lock, faults(str(target)):
            append(self._fd, entry)
            part_of(target).replace(target)
            self._entries[entry.file.path] = entry

    def finish_symbols(self, series: str, symbols: tuple[str, ...]) -> None:
        """Note that no file of those symbols is missing."""
        with self._lock, faults(str(self.folder / UNFINISHED)):
            append(self._fd, Done(series=series, symbols=symbols))

    def finish(self, manifest: Manifest) -> None:
        """Remove what the export replaces, write the manifest, and forget the journal."""
        kept = {file.path for file in manifest.files}
        with faults(str(self.folder)):
            for path in set(self.header.replaces) - kept:
                (self.folder / path).unlink(missing_ok=True)
            remove_parts(self.folder)
            for above in {str(above) for path in kept for above in PurePosixPath(path).parents}:
                sync(self.folder / above)
        write_text(self.folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
        with faults(str(self.folder)):
            (self.folder / UNFINISHED).unlink()
            sync(self.folder)

    def close(self) -> None:
        """Let others have the folder; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def remove_parts(folder: Path) -> None:
    """Remove what writers that died have left half-written."""
    for part in folder.rglob(f".*{PART}*"):
        part.unlink(missing_ok=True)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder, if it has one; raises `Conflict` when that is not one of ours."""
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except msgspec.MsgspecError as exc:
        raise Conflict(f"{folder / MANIFEST} is not a manifest of an export: {exc}", file=str(folder)) from exc


def claim(folder: Path) -> tuple[int, list[Line]]:
    """The journal in the folder, locked, and its lines; a line that was cut off is not there. None yet: no lines.

    Raises `Conflict` while another process writes to the folder.
    """
    path = folder / UNFINISHED
    with faults(str(path)):
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                raise Conflict(f"another process exports to {folder} right now", folder=str(folder)) from None
            if path.exists() and os.path.samestat(os.fstat(fd), path.stat()):
                return fd, _lines(fd)
            os.close(fd)  # its owner finished and removed it between our look and our lock


def _lines(fd: int) -> list[Line]:
    size = os.fstat(fd).st_size
    data = os.pread(fd, size, 0)
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < size:
        os.ftruncate(fd, len(whole))
    return [_decode(line) for line in whole.splitlines()]


def append(fd: int, line: Line) -> None:
    """Add a line, durably, or none of it."""
    end, data = os.fstat(fd).st_size, msgspec.json.encode(line) + b"\n"
    try:
        while data:
            data = data[os.write(fd, data) :]
        os.fsync(fd)
    except OSError:
        os.ftruncate(fd, end)
        raise


def header_of(lines: Sequence[Line]) -> Header:
    """What is exported: what the journal was started with last."""
    return [line for line in lines if isinstance(line, Header)][-1]


def start(folder: Path, fd: int, header: Header) -> Journal:
    """A new journal after what the claimed file held; what it replaces is not finished from here on."""
    with faults(str(folder / UNFINISHED)):
        append(fd, header)
        sync(folder)
        (folder / MANIFEST).unlink(missing_ok=True)
        sync(folder)
        remove_parts(folder)
    return Journal(folder, fd, header)


def resume(folder: Path, fd: int, lines: Sequence[Line]) -> Journal:
    """The journal as it was left; files that it names and that are not there any more are written again."""
    header = header_of(lines)
    lines = lines[lines.index(header) + 1 :]
    noted = [line for line in lines if isinstance(line, Entry)]
    with faults(str(folder)):
        (folder / MANIFEST).unlink(missing_ok=True)
        entries = [line for line in noted if _is_there(folder / line.file.path, line.file.bytes)]
        remove_parts(folder)
    lost = [line.file for line in noted if line not in entries] if len(entries) < len(noted) else []
    again = {(series_name(file.kind, file.interval), symbol) for file in lost for symbol in file.symbols}
    done = [(line.series, symbol) for line in lines if isinstance(line, Done) for symbol in line.symbols]
    return Journal(folder, fd, header, entries, set(done) - again, [file.path for file in lost])


def _is_there(target: Path, size: int) -> bool:
    """Whether a file that was whole still is; one that was noted but not renamed yet is given its name."""
    part = part_of(target)
    if part.exists() and part.stat().st_size == size:
        part.replace(target)
    return target.exists() and target.stat().st_size == size


def check_resumable(header: Header, options: ExportOptions, folder: Path) -> None:
    """Raise `Conflict` when another export was asked for than the one that is unfinished."""
    if options not in (ExportOptions(), header.options):
        raise Conflict(
            f"the unfinished export in {folder} is another one than asked for: resume it without options, or replace "
            "it with --overwrite",
            folder=str(folder),
        )


def check_new(folder: Path, lines: Sequence[Line], existing: Existing) -> None:
    """Raise `Conflict` or `NotFound` unless the folder may have the export that `existing` asks for."""
    if lines and existing is Existing.REFUSE:
        raise Conflict(
            f"{folder} has an unfinished export: go on with it with --resume, or replace it with --overwrite",
            folder=str(folder),
        )
    if not lines and existing is Existing.RESUME:
        raise NotFound(f"{folder} has no unfinished export to resume", folder=str(folder))
