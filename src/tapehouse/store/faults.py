"""The one place where what DuckDB, Arrow and the operating system raise becomes an error of ours."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from tapehouse.errors import StoreDamaged, StoreError, StoreFull, StoreReadOnly

_FULL = ("No space left on device", "Disk quota exceeded", "not enough disk space", "File too large")
_READ_ONLY = ("Read-only file system", "Permission denied", "read-only mode")
_MEMORY = "Out of Memory"
_ABORTED = "Current transaction is aborted"
_CORRUPT = (
    "not a valid DuckDB database",
    "Corrupt database",
    "checksum",
    "Failure while replaying WAL",
    "Serialization Error",
)


def translate(error: BaseException, what: str) -> StoreError | None:
    """The error of ours that it stands for, None when it is not about the store's files."""
    error = _cause(error)
    text = str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreFull(f"no space left to {what}; nothing was half-written", reason=text)
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StoreReadOnly(f"may not {what}: {error.strerror}", reason=text)
    if isinstance(error, duckdb.Error):
        return _translate_duckdb(text, what)
    if isinstance(error, OSError):
        return StoreError(f"could not {what}: {text}", reason=text)
    return None


def _translate_duckdb(text: str, what: str) -> StoreError:
    first_line = text.splitlines()[0] if text else "no reason given"
    if any(sign in text for sign in _FULL):
        return StoreFull(f"no space left to {what}; nothing was half-written", reason=text)
    if any(sign in text for sign in _READ_ONLY):
        return StoreReadOnly(f"may not {what}: {first_line}", reason=text)
    if any(sign in text for sign in _CORRUPT):
        return StoreDamaged(f"the database is damaged, could not {what}: {first_line}", reason=text)
    if _MEMORY in text:
        return StoreError(f"the memory limit of the store is too small to {what}: {first_line}", reason=text)
    return StoreError(f"could not {what}: {first_line}", reason=text)


def _cause(error: BaseException) -> BaseException:
    """What went wrong first: cleaning up in a transaction that has failed raises an error that says only that."""
    while _ABORTED in str(error) and isinstance(error.__context__, duckdb.Error | OSError):
        error = error.__context__
    return error


@contextmanager
def faults(what: str) -> Iterator[None]:
    """Raise our errors for those that arise while doing `what`, a verb and its object: "write bars"."""
    try:
        yield
    except (duckdb.Error, OSError) as exc:
        error = translate(exc, what)
        if error is None:
            raise
        raise error from exc
