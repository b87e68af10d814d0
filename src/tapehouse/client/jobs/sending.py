"""Files as parts of a form: opened when their turn comes, so that any number of them can be sent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

from tapehouse.errors import UnreadableFile

MEDIA_TYPE = "application/octet-stream"


class Sent:
    """A file while it is sent: what httpx needs of one. Its length is what it was at first, however it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
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
        self._left -= len(data)
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
            self._left = self._size
        elif (offset, whence) != (0, os.SEEK_END):
            raise OSError("only the beginning and the end can be found")
        return self._size if whence == os.SEEK_END else 0

    def close(self) -> None:
        """Let go of the file; idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _stat_size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError as exc:
            raise UnreadableFile(f"{self._path} cannot be read: {exc.strerror}", file=str(self._path)) from exc


def form_of(files: tuple[tuple[str, Path], ...], fields: dict[str, str]) -> dict[str, Any]:
    """Files and fields as httpx takes them; nothing when there are no files."""
    if not files:
        return {}
    return {"files": [("file", (name, Sent(path), MEDIA_TYPE)) for name, path in files], "data": fields}
