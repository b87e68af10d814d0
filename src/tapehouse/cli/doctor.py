"""`tapehouse doctor`: looks at everything that a server stands on, and says what is wrong and what to do."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from tapehouse.cli import context, tables
from tapehouse.errors import StoreDamaged, TapehouseError

if TYPE_CHECKING:
    from tapehouse.client import Client
    from tapehouse.model import Instrument
    from tapehouse.settings import Settings
    from tapehouse.store.owner import Owner

LITTLE_SPACE_BYTES = 1_000_000_000
NO_SPACE_BYTES = 100_000_000
_LIBRARIES = ("duckdb", "pyarrow", "polars", "numpy", "msgspec", "fastapi", "uvicorn", "httpx")
_EXTRAS = {"pandas": "pandas", "exchange_calendars": "calendars"}
_EARLIEST_CLOCK = 1_735_689_600  # 2025-01-01; this program is newer


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at, whether it is `ok`, a `warning` or a `problem`, and what to do."""

    check: str
    status: str
    found: str
    advice: str | None = None


def doctor(
    deep: Annotated[bool, typer.Option("--deep", help="Read every page of the archive, not just the footers.")] = False,
    json: context.Json = False,
    store: context.Where = None,
) -> None:
    """Check the data folder, the settings, the disk and the versions, and say what is wrong."""
    findings = list(examine(store, deep=deep))
    problems = sum(finding.status == "problem" for finding in findings)
    if json:
        context.emit({"ok": problems == 0, "findings": findings})
    else:
        _show(findings, problems)
    raise typer.Exit(1 if problems else 0)


def _show(findings: list[Finding], problems: int) -> None:
    marks = {"ok": ("ok", None), "warning": ("warn", typer.colors.YELLOW), "problem": ("WRONG", typer.colors.RED)}
    for finding in findings:
        mark, colour = marks[finding.status]
        typer.echo(f"{typer.style(f'{mark:<6}', fg=colour)} {finding.check:<10} {finding.found}")
        if finding.advice:
            typer.echo(f"{'':<17} -> {finding.advice}")
    typer.echo("nothing is wrong" if not problems else f"{problems} wrong", err=True)


def examine(where: str | None, *, deep: bool = False) -> Iterator[Finding]:
    """All findings, in the order in which one thing stands on another."""
    from tapehouse import settings

    yield from _versions()
    yield _clock()
    try:
        loaded = settings.load()
    except TapehouseError as error:
        yield _problem("settings", error, "Mend it, or remove it; docs/reference/settings.md lists all settings.")
        loaded = settings.Settings()
    else:
        yield Finding(check="settings", status="ok", found="all known and possible")
    target = where or context.chosen() or os.environ.get("TAPEHOUSE_URL") or loaded.store
    if target.startswith(("http://", "https://")):
        yield from _opening(target)
        return
    yield from _server(loaded, target)
    if target.startswith("duckdb://") or "://" not in target:
        yield from _folder(target, deep)
    else:
        yield from _opening(target)


def _versions() -> Iterator[Finding]:
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    found = f"tapehouse {version('tapehouse')}, Python {platform.python_version()}, {platform.system()}; {libraries}"
    yield Finding(check="versions", status="ok", found=found)
    for name, extra in _EXTRAS.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            advice = f"If you need it: pip install 'tapehouse[{extra}]'"
            yield Finding(check=extra, status="warning", found=f"{name} is not installed", advice=advice)
        else:
            yield Finding(check=extra, status="ok", found=f"{name} {found}")


def _clock() -> Finding:
    now = time.time()
    found = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < _EARLIEST_CLOCK:
        return Finding(check="clock", status="problem", found=found, advice="Set the clock: it is before this program.")
    return Finding(check="clock", status="ok", found=found)


def _server(loaded: Settings, target: str) -> Iterator[Finding]:
    from tapehouse.client.embedded import folder_of
    from tapehouse.store.owner import find_owner

    owner = None
    if target.startswith("duckdb://") or "://" not in target:
        folder = folder_of(target)
        owner = find_owner(folder) if folder.is_dir() and os.access(folder, os.R_OK | os.X_OK) else None
    yield _port(loaded, owner)


def _port(loaded: Settings, owner: Owner | None) -> Finding:
    place = f"{loaded.host}:{loaded.port}"
    family = socket.AF_INET6 if ":" in loaded.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((loaded.host, loaded.port))
        except OSError as exc:
            if owner is not None and owner.address:
                return Finding(check="port", status="ok", found=f"{place} is served by the folder's owner")
            advice = "Another program listens there; stop it, or choose another with --port or TAPEHOUSE_PORT."
            return Finding(check="port", status="problem", found=f"{place}: {exc.strerror or exc}", advice=advice)
    return Finding(check="port", status="ok", found=f"{place} is free")


def _folder(target: str, deep: bool) -> Iterator[Finding]:
    from tapehouse.client.embedded import folder_of
    from tapehouse.store.owner import find_owner

    folder = folder_of(target)
    if not folder.is_dir():
        yield _no_folder(folder)
        return
    writable = _writable(folder)
    yield writable
    yield _space(folder)
    if writable.status == "problem":
        return
    owner = find_owner(folder)
    found = "nobody has it open" if owner is None else f"open in {owner}"
    yield Finding(check="owner", status="ok", found=found)
    if owner is None:
        yield from _looking(folder)
    else:
        yield from _opening(target)
    yield _archive(folder, deep)


def _no_folder(folder: Path) -> Finding:
    if folder.exists():
        advice = "Name another with --store."
        return Finding(check="folder", status="problem", found=f"{folder} is not a folder", advice=advice)
    advice = "Load something into it: tapehouse load FILES."
    return Finding(check="folder", status="warning", found=f"{folder} is not there yet", advice=advice)


def _writable(folder: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as exc:
        advice = f"Let this user (uid {os.getuid()}) write there, or free the disk."
        found = f"cannot write to {folder}: {exc.strerror}"
        return Finding(check="folder", status="problem", found=found, advice=advice)
    return Finding(check="folder", status="ok", found=f"{folder} is there and can be written")


def _space(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    found = f"{tables.size(free)} free"
    if free >= LITTLE_SPACE_BYTES:
        return Finding(check="disk", status="ok", found=found)
    status = "problem" if free < NO_SPACE_BYTES else "warning"
    return Finding(check="disk", status=status, found=found, advice="Free some space: writes fail when there is none.")


def _looking(folder: Path) -> Iterator[Finding]:
    """What a folder holds that nobody has open. An owner would upgrade it and sweep it: that is not for the doctor."""
    from tapehouse.store.duckdb.engine import look
    from tapehouse.store.folder import DATABASE, FORMAT, check_format

    try:
        number = check_format(folder)
        if number is None or not (folder / DATABASE).exists():
            advice = "Load something into it: tapehouse load FILES, or bring its database back from a backup."
            yield Finding(check="store", status="warning", found=f"{folder} has no database", advice=advice)
            return
        if number < FORMAT:
            found = f"not looked into: its format is {number}, and {FORMAT} comes with the next start"
            yield Finding(check="store", status="warning", found=found, advice="Make a backup, then: tapehouse serve.")
            return
        seen = look(folder)
    except TapehouseError as error:
        yield _problem("store", error, _remedy(error))
        return
    most = "at most " if seen.deletes else ""
    found = f"can be opened: {seen.symbols:,} symbols, {seen.series:,} series, {most}{seen.rows:,} rows"
    yield Finding(check="store", status="ok", found=found)
    if seen.orphans:
        found = f"{seen.orphans:,} files that a killed compaction left"
        yield Finding(check="orphans", status="warning", found=found, advice="The next start removes them.")
    yield from _calendars(seen.instruments)
    yield from _recorded(seen.recorded)


def _opening(target: str) -> Iterator[Finding]:
    """Whether it opens and answers, and whether what it says makes sense."""
    try:
        with context.connect(target) as client:
            yield _answers(client)
            yield from _calendars(client.instruments())
            yield from _recorded(max((commit.recorded for commit in client.commits(limit=1_000)), default=0))
    except TapehouseError as error:
        yield _problem("store", error, _remedy(error))


def _answers(client: Client) -> Finding:
    series = client.coverage(spans=0)
    rows = sum(each.rows for each in series)
    found = f"answers: {len({each.symbol for each in series}):,} symbols, {len(series):,} series, {rows:,} rows"
    return Finding(check="store", status="ok", found=found)


def _calendars(instruments: Sequence[Instrument]) -> Iterator[Finding]:
    from tapehouse.calendars import timeline

    bad = 0
    for instrument in instruments:
        try:
            timeline(instrument)
        except TapehouseError as error:
            bad += 1
            yield _problem("calendars", error, f"Mend the instrument {instrument.pattern}: tapehouse instruments set")
    if not bad:
        yield Finding(check="calendars", status="ok", found=f"{len(instruments):,} instruments, all calendars known")


def _recorded(newest: int) -> Iterator[Finding]:
    ahead_s = newest / 1e9 - time.time()
    if ahead_s > 1:
        advice = "Set the clock: commits keep their order, but their times are wrong."
        found = f"a commit was recorded {ahead_s:,.0f} s in the future"
        yield Finding(check="clock", status="warning", found=found, advice=advice)


def _archive(folder: Path, deep: bool) -> Finding:
    """The Parquet files that lie there; which of them belong there, the store has checked when it was opened."""
    files = sorted(path for root in ("archive", "history") for path in (folder / root).rglob("*.parquet"))
    size = 0
    for path in files:
        try:
            size += path.stat().st_size
            _read(path, deep)
        except FileNotFoundError:
            continue  # a server's compactor has replaced it meanwhile
        except (OSError, ValueError) as exc:
            advice = "Bring it back from a backup, or load its span again."
            found = f"cannot read {path}: {exc}"
            return Finding(check="archive", status="problem", found=found, advice=advice)
    read = "read whole" if deep else "footers read"
    return Finding(check="archive", status="ok", found=f"{len(files):,} files, {tables.size(size)}, {read}")


def _read(path: Path, deep: bool) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, page_checksum_verification=deep) as file:
        for group in range(file.num_row_groups if deep else 0):
            file.read_row_group(group)


def _remedy(error: TapehouseError) -> str | None:
    """What to do about it; of what is damaged the finding itself says what that is."""
    if isinstance(error, StoreDamaged):
        return "Restore a backup (docs/guides/operations.md); the archive's files stay readable with other tools."
    return context.hint_for(error)


def _problem(check: str, error: TapehouseError, advice: str | None) -> Finding:
    return Finding(check=check, status="problem", found=error.message, advice=advice)


def versions(json: context.Json = False) -> None:
    """Show the version of Tapehouse, Python and the libraries."""
    found = {"tapehouse": version("tapehouse"), "python": platform.python_version()}
    found |= {name: version(name) for name in _LIBRARIES}
    if json:
        context.emit(found)
        return
    for name, number in found.items():
        typer.echo(f"{name} {number}")
