"""What a load is asked of: paths or a frame, and options; and how it becomes a job of a server."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq

from tapehouse.bulk.base import LoadOptions, OnProgress
from tapehouse.bulk.checks.base import Validate
from tapehouse.client.jobs.operations import LoadFiles, LoadPaths, said
from tapehouse.client.writes import Write, write
from tapehouse.errors import InvalidRequest

FRAME_FILE = "frame.parquet"

Files = Callable[[Sequence[str]], list[tuple[str, Path]]]


def options_of(given: dict[str, Any]) -> LoadOptions:
    """The options that were given as keywords; `InvalidRequest` names one that there is not."""
    if unknown := [name for name in given if name not in LoadOptions.__struct_fields__]:
        known = ", ".join(LoadOptions.__struct_fields__)
        raise InvalidRequest(f"there is no option {unknown[0]!r}; there are {known}", parameter=unknown[0])
    given = {name: tuple(each) if name in ("prefer", "formats") else each for name, each in given.items()}
    return LoadOptions(**given)


def validate_of(word: str) -> Validate:
    """How much is inspected; `InvalidRequest` names what there is."""
    try:
        return Validate(word)
    except ValueError:
        known = ", ".join(Validate)
        raise InvalidRequest(f"validate is one of {known}, not {word!r}", parameter="validate") from None


def paths_of(what: Any) -> list[str] | None:
    """The paths, when these are paths; None for a frame."""
    if isinstance(what, str | os.PathLike):
        return [os.fspath(what)]
    if isinstance(what, list | tuple) and all(isinstance(each, str | os.PathLike) for each in what):
        return [os.fspath(each) for each in what]
    return None


def frame_of(frame: Any, options: LoadOptions) -> Write:
    """A frame in the model's columns, as a client's upload takes it."""
    return write(
        frame,
        kind=options.kind or "bars",
        interval=options.interval,
        symbol=options.symbol,
        tz=options.timezone,
        source=options.source,
    )


@contextmanager
def as_file(table: Any, options: LoadOptions) -> Iterator[tuple[list[str], LoadOptions]]:
    """A table as a temporary file, and the options that are left to say of it."""
    with tempfile.TemporaryDirectory(prefix="tapehouse-") as folder:
        path = Path(folder) / FRAME_FILE
        pq.write_table(table, path, compression="zstd")
        source = options.source or "frame"
        yield [str(path)], msgspec.structs.replace(options, symbol=None, timezone=None, mapping={}, source=source)


def job_of(
    paths: Sequence[str],
    options: LoadOptions,
    validate: str,
    progress: OnProgress | None = None,
    *,
    here: bool,
    files: Files,
) -> LoadPaths | LoadFiles:
    """The job: of paths when the server is on this machine and ours (`here`), else of the files themselves.

    `progress` is told how much of these was sent.
    """
    words = said(options, validate_of(validate))
    if here:
        absolute = tuple(os.path.abspath(os.path.expanduser(path)) for path in paths)
        return LoadPaths(paths=absolute, options=words)
    ours = ("threads", "workers", "block_bytes", "batch_rows", "retries")
    words = {name: word for name, word in words.items() if name not in ours}
    return LoadFiles(files=tuple(files(paths)), options=words, progress=progress)
