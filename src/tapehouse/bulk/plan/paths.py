"""Which files are meant by paths: files, folders and globs. Links do not lead out of a folder that is searched."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from tapehouse.errors import NotFound

TEXT_SUFFIXES = (".csv", ".txt", ".tsv", ".jsonl", ".ndjson")
PACKED_SUFFIXES = (".gz", ".zst", ".xz")
SUFFIXES = (
    *TEXT_SUFFIXES,
    *(f"{suffix}{packed}" for suffix in TEXT_SUFFIXES for packed in PACKED_SUFFIXES),
    *(".zip", ".parquet", ".arrow", ".feather", ".ipc", ".arrows", ".sqlite", ".sqlite3", ".db", ".duckdb"),
)
DATA_FOLDER_MARK = "owner.lock"
"""A folder with this file is a store's: its archive and its quarantine are not loaded by the way."""


_STATUS = re.compile(r"(.*/)?DAT_[A-Z]+_[^/]+\.txt")
"""What histdata.com calls the report on the gaps in the .csv of the same name."""


class Found(msgspec.Struct, frozen=True):
    """Files, each once, in the order in which they are loaded; `links` that were not followed, and where these lead;
    `status_reports`."""

    files: list[Path]
    links: dict[Path, str]
    reports: list[Path] = []


def find(paths: Sequence[str | Path]) -> Found:
    """The files that are meant by files, folders (searched for what can be loaded) and globs.

    `NotFound` for a path that is not there, and for a folder without a file to load.
    """
    files: dict[Path, None] = {}
    links: dict[Path, str] = {}
    for path in paths:
        found = _find(str(path))
        files.update(dict.fromkeys(found.files))
        links |= found.links
    reports = status_reports(map(str, files))
    kept, left = ([path for path in files if (str(path) in reports) is is_report] for is_report in (False, True))
    return Found(kept, links, left)


def status_reports(names: Iterable[str]) -> set[str]:
    """Which of the names are those of histdata.com's reports on another of them."""
    there = set(names)
    return {name for name in there if _STATUS.fullmatch(name) and f"{name.removesuffix('.txt')}.csv" in there}


def _find(path: str) -> Found:
    if os.path.isdir(path):
        return _in_folder(path)
    if os.path.exists(path):
        return Found([Path(path)], {})
    if not any(character in path for character in "*?["):
        raise NotFound(f"there is no file or folder {path}", path=path)
    matches = sorted(glob.glob(path, recursive=True))
    files = [Path(match) for match in matches if os.path.isfile(match)]
    inside = [_find(match) for match in matches if "**" not in path and os.path.isdir(match)]
    files += [file for found in inside for file in found.files]
    if not files:
        raise NotFound(f"no file matches {path}", path=path)
    return Found(files, {link: where for found in inside for link, where in found.links.items()})


def _in_folder(path: str) -> Found:
    files: list[Path] = []
    links: dict[Path, str] = {}
    for entry in _walk(path):
        if entry.is_symlink() and (where := _elsewhere(entry, path)) is not None:
            links[Path(entry.path)] = where
        elif entry.name.lower().endswith(SUFFIXES) and entry.is_file():
            files.append(Path(entry.path))
    if not files:
        more = next((f", and does not follow {link}, which leads {where}" for link, where in links.items()), "")
        raise NotFound(f"folder {path} has no file to load; looked for {' '.join(SUFFIXES)}{more}", path=path)
    once = _once(files)
    links |= dict.fromkeys(set(files).difference(once), "to a file that is loaded itself")
    return Found(sorted(once), dict(sorted(links.items())))


def _walk(path: str) -> Iterator[os.DirEntry[str]]:
    """Everything below that is no folder, and links to folders; nothing hidden, and nothing of a store's folder."""
    with os.scandir(path) as scan:
        entries = [entry for entry in scan if not entry.name.startswith(".")]
    if any(entry.name == DATA_FOLDER_MARK for entry in entries):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)
        else:
            yield entry


def _elsewhere(link: os.DirEntry[str], folder: str) -> str | None:
    """Where a link leads that is not followed; None: to a file below the folder that is searched."""
    if not Path(os.path.realpath(link.path)).is_relative_to(os.path.realpath(folder)):
        return "out of the folder"
    if os.path.isdir(link.path):
        return "to a folder that is searched itself"
    return None if os.path.exists(link.path) else "to nothing"


def _once(files: list[Path]) -> list[Path]:
    """Without links to files that are there themselves."""
    linked = [file for file in files if file.is_symlink()]
    if not linked:
        return files
    real = {os.path.realpath(file) for file in files if not file.is_symlink()}
    kept = {os.path.realpath(link): link for link in linked}
    return [file for file in files if not file.is_symlink()] + [link for at, link in kept.items() if at not in real]
