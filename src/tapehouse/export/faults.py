"""The one place where what Arrow, SQLite, DuckDB and the system raise while files are written becomes ours."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from tapehouse.errors import NotSupported, StoreError, StoreFull, StoreReadOnly, TapehouseError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)
_FULL_TEXTS = ("no space left", "disk is full", "not enough disk space", "quota exceeded")


@contextmanager
def faults(path: str) -> Iterator[None]:
    """Raise our errors for those that arise while that path is written."""
    import duckdb
    import pyarrow as pa

    try:
        yield
    except (OSError, sqlite3.Error, duckdb.Error, pa.ArrowException) as exc:
        raise _translated(exc, path) from exc


def _translated(exc: Exception, path: str) -> TapehouseError:
    text = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
    number = exc.errno if isinstance(exc, OSError) else None
    if number in _FULL or any(sign in text.lower() for sign in _FULL_TEXTS):
        return StoreFull(
            f"no space left to write {path}; no file is half-written. Make room, and go on with --resume",
            file=path,
            reason=text,
        )
    if number in _REFUSED:
        return StoreReadOnly(f"may not write {path}: {text}", file=path)
    if number == errno.ENAMETOOLONG:
        return NotSupported(f"the file system takes no name as long as {path}", file=path)
    return StoreError(f"could not write {path}: {text}", file=path)
