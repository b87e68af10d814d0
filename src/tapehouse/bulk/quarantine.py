"""Where bad rows go: a CSV file for each file that has some, with its line, the reason and the row as it was."""

from __future__ import annotations

import csv
import errno
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

from tapehouse.bulk.base import BadRow, Rejection
from tapehouse.errors import StoreError, StoreFull, StoreReadOnly

COLUMNS = ("file", "line", "reason", "row")
EXAMPLES = 3


class Reasons(msgspec.Struct, kw_only=True):
    """Why rows were refused, with the first few, and what was remarked of so many rows that were taken."""

    rejections: dict[str, Rejection] = {}
    remarks: dict[str, int] = {}

    @classmethod
    def of(cls, bad: Sequence[tuple[str, BadRow]], remarks: Mapping[str, int]) -> Reasons:
        """Those of some rows."""
        found = cls(remarks=dict(remarks))
        for reason, row in bad:
            rejection = found.rejections.setdefault(reason, Rejection(reason=reason, examples=[]))
            rejection.rows += 1
            if len(rejection.examples) < EXAMPLES:
                rejection.examples.append(BadRow(row.line, row.row[:500]))
        return found

    def add(self, more: Reasons) -> None:
        """Those of later rows too."""
        for reason, each in more.rejections.items():
            rejection = self.rejections.setdefault(reason, Rejection(reason=reason, examples=[]))
            rejection.rows += each.rows
            rejection.examples += each.examples[: EXAMPLES - len(rejection.examples)]
        for what, rows in more.remarks.items():
            self.remarks[what] = self.remarks.get(what, 0) + rows


class QuarantineFile:
    """The bad rows of one file, written as they come; there is no file until there is a row."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._file: IO[str] | None = None
        self._writer: Any = None
        self.path: Path | None = None

    def add(self, bad: Sequence[tuple[str, BadRow]]) -> None:
        """Write the rows with their reasons; `StoreFull` or another `StoreError` when that fails."""
        if not bad:
            return
        try:
            self._open().writerows((self._name, row.line, reason, row.row) for reason, row in bad)
        except OSError as exc:
            raise translated(exc, self._folder) from exc

    def close(self) -> None:
        """Make what was added durable enough to read; idempotent."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as exc:
                raise translated(exc, self._folder) from exc
            self._file = None

    def _open(self) -> Any:
        if self._writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self.path = _free(self._folder, self._name)
            self._file = self.path.open("x", newline="", encoding="utf-8")
            self._writer = csv.writer(self._file)
            self._writer.writerow(COLUMNS)
        return self._writer


def _free(folder: Path, name: str) -> Path:
    """A path for that file's bad rows that nothing has; two files of one name in a load get numbers."""
    stem = re.sub(r"[^\w.+=^-]", "_", name).lstrip(".")[:200] or "_"
    number, path = 1, folder / f"{stem}.csv"
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.csv"
    return path


def translated(exc: OSError, folder: Path) -> StoreError:
    """The error of a folder to which nothing can be written."""
    kind = StoreFull if exc.errno == errno.ENOSPC else StoreReadOnly if isinstance(exc, PermissionError) else StoreError
    return kind(f"bad rows cannot be written to {folder}: {exc.strerror or exc}", path=str(folder))
