"""Files that were sent to be loaded, on disk until they are."""

from __future__ import annotations

import errno
import shutil
import tempfile
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tapehouse.errors import InvalidRequest, LimitExceeded, StoreError, StoreFull, StoreReadOnly, UnreadableFile

_PREFIX = "upload-"
_LONGEST_PART = 200
_MOST_PARTS = 16
_MAX_FILES = 100_000


class Spool:
    """A folder that only one process uses, with a limit for each upload and one for all together, in bytes."""

    def __init__(self, folder: Path | None, *, upload_bytes: int, total_bytes: int) -> None:
        """None: a temporary folder, made when it is first needed."""
        self._folder = folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.upload_bytes, self._total_bytes = upload_bytes, total_bytes
        self._held = 0
        self._lock = threading.Lock()

    def upload(self) -> SpooledUpload:
        """A place for the files of one upload."""
        parent = self._parent()
        with _translated(parent):
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return SpooledUpload(self, Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent)).absolute())

    def again(self, folder: Path, sizes: Mapping[str, int]) -> SpooledUpload:
        """An upload of a former process, whose files were so big; `SpooledUpload.check` says whether they are there."""
        upload = SpooledUpload(self, folder, sizes)
        with self._lock:
            self._held += sum(sizes.values())
        return upload

    def sweep(self, wanted: Collection[Path]) -> None:
        """Remove what a former process left, but for these folders."""
        if self._folder is None or not self._folder.exists():
            return
        with _translated(self._folder):
            for found in self._folder.absolute().glob(f"{_PREFIX}*"):
                if found not in wanted:
                    shutil.rmtree(found)

    def take(self, size: int) -> None:
        """Keep so many bytes for an upload; `LimitExceeded` when all together are too many."""
        with self._lock:
            if self._held + size > self._total_bytes:
                raise LimitExceeded(
                    f"the files that wait to be loaded have at most {self._total_bytes:,} bytes together "
                    "(max_spool_bytes); send these when others are loaded",
                    limit=self._total_bytes,
                )
            self._held += size

    def give_back(self, size: int) -> None:
        """So many bytes are no longer there."""
        with self._lock:
            self._held -= size

    def close(self) -> None:
        """Remove what was temporary; idempotent."""
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def _parent(self) -> Path:
        if self._folder is not None:
            return self._folder
        with self._lock:
            self._temporary = self._temporary or tempfile.TemporaryDirectory(prefix="tapehouse-")
        return Path(self._temporary.name)


class SpooledUpload:
    """The files of one upload (`jobs.base.Upload`)."""

    def __init__(self, spool: Spool, folder: Path, sizes: Mapping[str, int] | None = None) -> None:
        self.folder = folder
        self.sizes: dict[str, int] = dict(sizes or {})
        self._spool = spool
        self._size = sum(self.sizes.values())
        self._name = ""
        self._file: BinaryIO | None = None

    def begin(self, name: str) -> None:
        """See `jobs.base.Upload`."""
        self.end()
        path = _checked(name)
        if name in self.sizes:
            raise InvalidRequest(f"two files are called {name!r}", file=name)
        if len(self.sizes) >= _MAX_FILES:
            raise LimitExceeded(f"an upload has at most {_MAX_FILES:,} files", limit=_MAX_FILES)
        with _translated(self.folder):
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            self._file = (self.folder / path).open("xb")
        self.sizes[name], self._name = 0, name

    def write(self, data: bytes | bytearray) -> None:
        """See `jobs.base.Upload`."""
        assert self._file is not None
        if self._size + len(data) > self._spool.upload_bytes:
            most = self._spool.upload_bytes
            raise LimitExceeded(
                f"an upload has at most {most:,} bytes (max_upload_bytes); send the files in several, or load them on "
                "the server's machine",
                limit=most,
            )
        self._spool.take(len(data))
        self._size += len(data)
        with _translated(self.folder):
            self._file.write(data)
        self.sizes[self._name] += len(data)

    def end(self) -> None:
        """See `jobs.base.Upload`."""
        if self._file is not None:
            with _translated(self.folder):
                self._file.close()
            self._file = None

    def check(self) -> None:
        """`UnreadableFile` names the first file that is not as it was sent."""
        for name, size in self.sizes.items():
            path = self.folder / name
            found = path.stat().st_size if path.is_file() else 0
            if found != size:
                raise UnreadableFile(
                    f"{name} waited to be loaded and is no longer whole: {found:,} of its {size:,} bytes are there; "
                    "send it again",
                    file=name,
                )

    def discard(self) -> None:
        """See `jobs.base.Upload`."""
        size, self._size = self._size, 0
        self._spool.give_back(size)
        if self._file is not None:
            self._file.close()
            self._file = None
        if self.folder.exists():
            shutil.rmtree(self.folder)


def _checked(name: str) -> PurePosixPath:
    """A name, perhaps below folders, that leads nowhere but into the upload's own."""
    parts = name.split("/")
    wrong = (
        not name
        or len(parts) > _MOST_PARTS
        or any(part in ("", ".", "..") or len(part.encode()) > _LONGEST_PART for part in parts)
        or any(char == "\\" or ord(char) < 32 or ord(char) == 127 or 0xD800 <= ord(char) < 0xE000 for char in name)
    )
    if wrong:
        raise InvalidRequest(
            f"{name[:100]!r} cannot be the name of a file: it has parts of 1 to {_LONGEST_PART} bytes between slashes, "
            "none of them '.' or '..'",
            file=name[:100],
        )
    return PurePosixPath(name)


@contextmanager
def _translated(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(f"no space left for uploads in {folder}", folder=str(folder)) from exc
        if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StoreReadOnly(f"cannot write uploads to {folder}: {exc.strerror}", folder=str(folder)) from exc
        if exc.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            raise InvalidRequest(f"a file of the upload has the name of a folder of it: {exc.filename}") from exc
        raise StoreError(f"cannot keep uploads in {folder}: {exc.strerror}", folder=str(folder)) from exc
