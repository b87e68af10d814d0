"""Where bad rows go: a CSV file for each file that has some, with its line, the reason and the row as it was."""

from __future__ import annotations

import csv
import errno
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO

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


class Quarantine:
    """The folder of a load's bad rows. What is there already belongs to others, which may be loads of the same name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._taken = set(self.names())

    def names(self) -> list[str]:
        """The files that are there, by name."""
        return sorted(path.name for path in self.folder.glob("*.csv"))

    def resume(self, others: Iterable[str]) -> None:
        """Of what is there only these belong to others: the rest was left by a run that did not live to note it."""
        self._taken = set(others)

    def file(self, name: str) -> QuarantineFile:
        """Where the bad rows of the file of that name go."""
        return QuarantineFile(self, name)

    def take(self, path: Path) -> None:
        """The path is somebody's from now on."""
        self._taken.add(path.name)

    def give_back(self, path: Path) -> None:
        """The path is nobody's again."""
        self._taken.discard(path.name)

    def free(self, name: str) -> Path:
        """A path for that file's bad rows that nobody has; two files of one name in a load get numbers."""
        stem = re.sub(r"[^\w.+=^-]", "_", name).lstrip(".")[:200] or "_"
        number, path = 1, self.folder / f"{stem}.csv"
        while path.name in self._taken:
            number += 1
            path = self.folder / f"{stem}-{number}.csv"
        self.take(path)
        return path


class QuarantineFile:
    """The bad rows of one file, written as they come; there is no file until there is a row.

    `size` is how many bytes it has with all that was added.
    """

    def __init__(self, quarantine: Quarantine, name: str) -> None:
        self._quarantine, self._name = quarantine, name
        self._file: IO[bytes] | None = None
        self.path: Path | None = None
        self.size = 0

    def add(self, bad: Sequence[tuple[str, BadRow]]) -> None:
        """Write the rows with their reasons; `StoreFull` or another `StoreError` when that fails."""
        if bad:
            self._write((self._name, row.line, reason, row.row) for reason, row in bad)

    def flush(self) -> None:
        """See that what was added outlives the process; raises as `add` does."""
        if self._file is not None:
            with self._failing():
                self._file.flush()

    def resume(self, path: Path, size: int) -> bool:
        """Go on behind the first `size` bytes of a file of an earlier run; False when it has not got so many."""
        with self._failing():
            if not path.is_file() or path.stat().st_size < size:
                return False
            os.truncate(path, size)
        self._quarantine.take(path)
        self.path, self.size = path, size
        return True

    def discard(self) -> None:
        """Remove the file of an earlier run, whose rows are read again."""
        if self.path is not None:
            with self._failing():
                self.path.unlink(missing_ok=True)
            self._quarantine.give_back(self.path)
            self.path, self.size = None, 0

    def close(self) -> None:
        """Make what was added durable enough to read; idempotent."""
        if self._file is not None:
            with self._failing():
                self._file.close()
            self._file = None

    def _write(self, rows: Iterable[Sequence[object]]) -> None:
        with self._failing():
            file = self._open()
            text = io.StringIO(newline="")
            csv.writer(text).writerows(rows if self.size else chain([COLUMNS], rows))
            self.size += file.write(text.getvalue().encode())

    def _open(self) -> IO[bytes]:
        if self._file is None:
            self._quarantine.folder.mkdir(parents=True, exist_ok=True)
            if self.path is None:
                self.path = self._quarantine.free(self._name)
            self._file = self.path.open("ab" if self.size else "wb")
        return self._file

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise translated(exc, self._quarantine.folder) from exc


def translated(exc: OSError, folder: Path) -> StoreError:
    """The error of a folder to which nothing can be written."""
    kind = StoreFull if exc.errno == errno.ENOSPC else StoreReadOnly if isinstance(exc, PermissionError) else StoreError
    return kind(f"bad rows cannot be written to {folder}: {exc.strerror or exc}", path=str(folder))
