"""`tapehouse export`: rows to files with a manifest, and whether these are still what they were."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tapehouse.cli import tables
from tapehouse.cli.context import INTERRUPTED, End, Json, Start, Where, connect, emit, say
from tapehouse.cli.progress import Step, progress

if TYPE_CHECKING:
    from tapehouse.export.base import Manifest, Progress, Verification

_SHOWN = 20


Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the files go.")]
Symbols = Annotated[list[str] | None, typer.Argument(metavar="[SYMBOL]...", help="Default: all.")]
Match = Annotated[
    list[str] | None, typer.Option("--match", "-m", metavar="PATTERN", help="Symbols such as 'BTC*'; repeatable.")
]
Kinds = Annotated[list[str] | None, typer.Option("--kind", metavar="KIND", help="bars, trades or quotes; repeatable.")]
Intervals = Annotated[
    list[str] | None, typer.Option("--interval", "-i", metavar="INTERVAL", help="Of bars; repeatable.")
]
Columns = Annotated[str | None, typer.Option(help="Names with commas between them; default: all.")]
AsOf = Annotated[str | None, typer.Option(metavar="COMMIT|TIME", help="What was known then.")]
Source = Annotated[str | None, typer.Option(help="The rows of that source, current or not.")]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        "-f",
        metavar="FORMAT",
        help="parquet, arrow, feather, csv, tsv or jsonl (also csv.gz .zst .xz .zip), sqlite or duckdb.",
    ),
]
Partition = Annotated[
    str,
    typer.Option("--partition", "-p", metavar="BY", help="symbol, year, month, day, symbol,month ..., or none."),
]
Resample = Annotated[bool, typer.Option("--resample", help="Make the bars of the interval where they are not stored.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the unfinished export in the folder.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the export, and files of the same names, in the folder.")
]
Verify = Annotated[
    bool, typer.Option("--verify", help="Compare the files in the folder with their manifest; write nothing.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="For reading and writing; default: one per core.")]


def export(
    folder: Folder,
    symbols: Symbols = None,
    match: Match = None,
    kind: Kinds = None,
    interval: Intervals = None,
    start: Start = None,
    end: End = None,
    columns: Columns = None,
    as_of: AsOf = None,
    source: Source = None,
    format_: Format = "parquet",
    partition: Partition = "symbol",
    resample: Resample = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    verify: Verify = False,
    threads: Threads = None,
    json: Json = False,
    store: Where = None,
) -> None:
    """Export bars, trades and quotes to files: without options everything that is stored, as Parquet by symbol.

    All files are as of one commit, whatever is written meanwhile. A file is there as a whole or not at all, and the
    manifest, which lists them with their hashes, is written last. `tapehouse load` takes the files back.
    """
    if resume and overwrite:
        raise typer.BadParameter("either go on with the export, or replace it", param_hint="--resume and --overwrite")
    if verify:
        _verify(folder, threads, json)
    choices: dict[str, Any] = {
        "match": match,
        "kind": kind,
        "interval": interval,
        "start": start,
        "end": end,
        "columns": None if columns in (None, "all") else str(columns).split(","),
        "as_of": as_of,
        "source": source,
        "format": format_,
        "partition": partition,
        "resample": resample,
    }
    existing = "resume" if resume else "overwrite" if overwrite else "refuse"
    try:
        with connect(store) as client, progress(_step) as told:
            manifest = client.export(
                folder, symbols or None, existing=existing, threads=threads, progress=told, **choices
            )
    except KeyboardInterrupt:
        say(f"interrupted: what is in {folder} stays; go on with tapehouse export {folder} --resume")
        raise typer.Exit(INTERRUPTED) from None
    _show(manifest, folder, json)


def _show(manifest: Manifest, folder: Path, as_json: bool) -> None:
    if as_json:
        emit(manifest)
        return
    what = f"{manifest.rows:,} rows in {len(manifest.files):,} files ({tables.size(manifest.bytes)})"
    typer.echo(f"{what} as of commit {manifest.commit}, listed in {folder / 'manifest.json'}")
    if not manifest.files:
        say("nothing is stored in that span of time")


def _verify(folder: Path, threads: int | None, as_json: bool) -> None:
    from tapehouse.export.verify import verify

    found = verify(folder, threads=threads)
    if as_json:
        emit({"ok": found.ok, **_fields(found)})
    else:
        for fault in found.faults[:_SHOWN]:
            say(f"{fault.path}: {fault.problem}")
        if (hidden := len(found.faults) - _SHOWN) > 0:
            say(f"and {hidden:,} other files")
        for path in found.unknown[:_SHOWN]:
            say(f"{path}: is not in the manifest")
        verdict = "are what was written" if found.ok else f"were looked at, {len(found.faults):,} faults found"
        typer.echo(f"{found.files:,} files ({tables.size(found.bytes)}) {verdict}")
    raise typer.Exit(0 if found.ok else 1)


def _fields(found: Verification) -> dict[str, Any]:
    import msgspec

    fields: dict[str, Any] = msgspec.to_builtins(found)
    return fields


def _step(done: Progress) -> Step:
    return Step(done.rows, done.rows_total, done.file, said(done))


def said(done: Progress) -> str:
    """How far an export is, in a few words."""
    share = f"{done.rows / done.rows_total:.0%}, " if done.rows_total else ""
    pace = f", {done.rows / done.seconds:,.0f} rows/s" if done.seconds else ""
    return f"{share}{done.rows:,} rows, {done.files:,} files, {tables.size(done.bytes)}{pace}"
