"""Files as parts of a form: opened when their turn comes, so that any number of them can be sent."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from tapehouse.bulk.base import OnProgress, Progress
from tapehouse.errors import UnreadableFile

MEDIA_TYPE = "application/octet-stream"


class Sent:
    """A file while it is sent: what httpx needs of one. Its length is what it was at first, however it grows."""

    def __init__(self, path: Path, on_read: Callable[[int], None] | None = None) -> None:
        """`on_read` is told of so many more bytes that were read, less than none when it goes to the beginning."""
        self._path, self._on_read = path, on_read
        self._file: BinaryIO | None = None
        self._size = self._left = self._stat_size()

    def read(self, size: int = -1) -> bytes:
        """The next bytes; `UnreadableFile` when there are fewer than there were."""
        if self._left == 0:
            return b""
        try:
            self._file = self._file or self._path.open("rb")
            data = self._file.read(min(self._left, size) if size >= 0 else self._left)
        except OSError as exc:
            raise UnreadableFile(f"{self._path} cannot be read: {exc.strerror}", file=str(self._path)) from exc
        self._moved(len(data))
        if self._left == 0 or not data:
            self.close()
        if not data:
            raise UnreadableFile(f"{self._path} became shorter while it was sent", file=str(self._path))
        return data

    def tell(self) -> int:
        """How much was read."""
        return self._size - self._left

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """To the beginning, or to the end, which tells the length; httpx goes nowhere else."""
        if (offset, whence) == (0, os.SEEK_SET):
            self.close()
            self._moved(self._left - self._size)
        elif (offset, whence) != (0, os.SEEK_END):
            raise OSError("only the beginning and the end can be found")
        return self._size if whence == os.SEEK_END else 0

    def close(self) -> None:
        """Let go of the file; idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _moved(self, size: int) -> None:
        self._left -= size
        if size and self._on_read is not None:
            self._on_read(size)

    def _stat_size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError as exc:
            raise UnreadableFile(f"{self._path} cannot be read: {exc.strerror}", file=str(self._path)) from exc


class Sending:
    """Tells how much of the files was sent, as a load's progress."""

    def __init__(self, files: Sequence[tuple[str, Path]], on_progress: OnProgress) -> None:
        self._numbers = {name: number for number, (name, _) in enumerate(files, 1)}
        self._total = sum(path.stat().st_size for _, path in files if path.exists())
        self._on_progress = on_progress
        self._done = 0
        self._started = time.monotonic()

    def __call__(self, name: str, size: int) -> None:
        """So many more bytes of that file went out."""
        self._done += size
        seconds, left = time.monotonic() - self._started, max(0, self._total - self._done)
        progress = Progress(
            file=name,
            file_number=self._numbers[name],
            files=len(self._numbers),
            bytes_done=self._done,
            bytes_total=max(self._total, self._done),
            rows=0,
            quarantined=0,
            rows_per_s=0.0,
            eta_s=seconds * left / self._done if self._done > 0 else None,
            sending=True,
        )
        self._on_progress(progress)


def form_of(
    files: tuple[tuple[str, Path], ...], fields: dict[str, str], on_sent: Callable[[str, int], None] | None = None
) -> dict[str, Any]:
    """Files and fields as httpx takes them; nothing when there are no files."""
    if not files:
        return {}
    parts = [(name, Sent(path, on_sent and partial(on_sent, name)), MEDIA_TYPE) for name, path in files]
    return {"files": [("file", part) for part in parts], "data": fields}
