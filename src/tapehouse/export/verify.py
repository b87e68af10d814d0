"""Whether the files of an export are still what its manifest says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tapehouse.errors import NotFound
from tapehouse.export.base import MANIFEST, UNFINISHED, Fault, FileEntry, Verification
from tapehouse.export.faults import faults
from tapehouse.export.files import digest_of
from tapehouse.export.journal import read_manifest


def verify(folder: str | Path, *, threads: int | None = None) -> Verification:
    """Read every file of the manifest and compare it with what was written.

    Raises `NotFound` when the folder has no export, and `Conflict` when its manifest is not one.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    unfinished = (folder / UNFINISHED).exists()
    if manifest is None and not unfinished:
        raise NotFound(f"{folder} has no {MANIFEST} of an export", folder=str(folder))
    files = manifest.files if manifest is not None else ()
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        found = [fault for fault in pool.map(lambda file: _fault(folder, file), files) if fault is not None]
    if unfinished:
        found.append(Fault(UNFINISHED, "the export is not finished: go on with --resume"))
    known = {file.path for file in files}
    return Verification(
        files=len(files),
        bytes=sum(file.bytes for file in files),
        faults=tuple(found),
        unknown=tuple(sorted(path for path in _paths(folder) if path not in known)),
    )


def _fault(folder: Path, file: FileEntry) -> Fault | None:
    path = folder / file.path
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return Fault(file.path, "is not there")
    if size != file.bytes:
        return Fault(file.path, f"has {size:,} bytes instead of {file.bytes:,}")
    with faults(str(path)):
        return None if digest_of(path).sha256 == file.sha256 else Fault(file.path, "has other bytes than were written")


def _paths(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in (MANIFEST, UNFINISHED):
            yield path.relative_to(folder).as_posix()
