"""The data folder's layout and its format number.

    format.json        the layout's version, who wrote it, and whether there was a database already
    owner.lock         who owns the folder (store/owner.py)
    tapehouse.duckdb   names, commits, hot rows, the archive's register
    archive/           Parquet: the current rows of settled spans
    history/           Parquet: versions that are no longer current, or never were
    backup/format-N/   what an upgrade changed, as it was
    tmp/               DuckDB's spill files

An upgrade runs one step per format, oldest first. Each step works on files that were copied to `backup/` before, and
the new number is written when it is done, so that a killed upgrade starts over from the copy.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from tapehouse.errors import StoreDamaged, StoreTooNew
from tapehouse.failpoints import failpoint
from tapehouse.store.faults import faults

log = logging.getLogger("tapehouse.store")

FORMAT = 3
"""The version of the layout, raised whenever an older program could not read it."""

DATABASE = "tapehouse.duckdb"
FORMAT_FILE = "format.json"
ARCHIVE_FOLDERS = ("archive", "history")
_BEFORE_A_STORE = {"owner.lock", "tapehouse.sock", "keys.json", "keys.json.lock", "tapehouse.toml"}
"""What may be in a folder before there is a store."""

Upgrade = tuple[tuple[str, ...], Callable[[Path], None]]
"""The names that a step changes, which are copied first, and the step itself."""

UPGRADES: Mapping[int, Upgrade] = {1: ((), lambda folder: None), 2: ((), lambda folder: None)}
"""Format number -> the step to the next one.

1 -> 2: the tables `undos` and `documents`, which the store makes when it opens the database. Nothing that is there
changes, but a program of format 1 would take an undo for a delete of everything in its span.

2 -> 3: the columns of `files` that say what each file's footer is, likewise; they are empty for files that are there
already. A program of format 2 could not register a file.
"""


def prepare_folder(folder: Path, *, upgrades: Mapping[int, Upgrade] = UPGRADES, newest: int = FORMAT) -> None:
    """Make a new folder, upgrade an older one, refuse a newer one (`StoreTooNew`)."""
    with faults(f"prepare the folder {folder}"):
        found = check_format(folder, newest)
        if found is None:
            if others := sorted(path.name for path in folder.iterdir() if path.name not in _BEFORE_A_STORE):
                log.warning("a new store is made in %s, beside %s", folder, ", ".join(others[:5]))
            write_format(folder, newest)
            return
        for number in range(found, newest):
            _upgrade(folder, number, upgrades[number])


def check_format(folder: Path, newest: int = FORMAT) -> int | None:
    """The folder's format number, None for a new folder; `StoreTooNew` for one that this program does not know."""
    found = read_format(folder)
    if found is not None and found > newest:
        raise StoreTooNew(
            f"{folder} was written by a newer version (format {found}); this one knows up to format {newest}: "
            "install a newer tapehouse",
            found=found,
            known=newest,
        )
    return found


def read_format(folder: Path) -> int | None:
    """The folder's format number, None for a new folder."""
    try:
        text = (folder / FORMAT_FILE).read_text()
    except FileNotFoundError:
        if (folder / DATABASE).exists():
            raise StoreDamaged(f"{folder} has a database but no {FORMAT_FILE}", folder=str(folder)) from None
        return None
    try:
        found = json.loads(text)
        number, had_database = int(found["format"]), found.get("database", False)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise StoreDamaged(f"{folder / FORMAT_FILE} does not hold a format number: {text[:80]!r}") from exc
    if had_database and not (folder / DATABASE).exists():
        raise StoreDamaged(
            f"{folder} has lost {DATABASE}, which held the newest rows and says what the archive files are: bring it "
            "back from a backup. Nothing was changed; other tools can read the files of the archive",
            folder=str(folder),
        )
    return number


def note_database(folder: Path) -> None:
    """Note that the folder's database is there, so that one that is missing later is not taken for a new folder."""
    if not json.loads((folder / FORMAT_FILE).read_text()).get("database", False):
        write_format(folder, FORMAT, database=True)


def write_format(folder: Path, number: int, *, database: bool = False) -> None:
    """Set the format number, durably and all at once."""
    temporary = folder / f".{FORMAT_FILE}"
    content = {"format": number, "written_by": version("tapehouse"), "database": database}
    temporary.write_text(json.dumps(content) + "\n")
    sync(temporary)
    os.replace(temporary, folder / FORMAT_FILE)
    sync(folder)


def _upgrade(folder: Path, number: int, upgrade: Upgrade) -> None:
    names, step = upgrade
    backup = folder / "backup" / f"format-{number}"
    if backup.exists():  # the copy of an upgrade that was killed: what it changed may be half done
        _copy(backup, folder, names)
    else:
        partial = backup.with_name(f".{backup.name}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _copy(folder, partial, names)
        failpoint("folder.upgrade.copied")
        os.replace(partial, backup)
        sync(backup.parent)
        sync(folder)
    step(folder)
    failpoint("folder.upgrade.stepped")
    write_format(folder, number + 1)


def _copy(source: Path, target: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if (target / name).is_dir():
            shutil.rmtree(target / name)
        else:
            (target / name).unlink(missing_ok=True)
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name)
        elif (source / name).exists():
            shutil.copy2(source / name, target / name)
    for path in filter(Path.is_file, target.rglob("*")):
        sync(path)


def make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it; returns the new ones, whose parents must be synced."""
    missing = [f for f in [folder, *folder.parents] if not f.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def sync(path: Path) -> None:
    """fsync a file or a folder."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
