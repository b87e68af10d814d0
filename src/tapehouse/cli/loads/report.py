"""What `tapehouse load` says before and after."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import typer

from tapehouse.cli.context import INTERRUPTED, say

if TYPE_CHECKING:
    from tapehouse.bulk import LoadReport, RecognisedFile
    from tapehouse.bulk.base import Certificate, Certified, Counts
    from tapehouse.model import Instrument

_REASONS_SHOWN = 5
_FILES_SHOWN = 100


def say_plan(files: list[RecognisedFile], instruments: list[Instrument] | None) -> set[str]:
    """What each file is taken for; of very many, the first and those that cannot be loaded. Returns what kept these."""
    from tapehouse.bulk import describe

    for number, file in enumerate(files):
        if number < _FILES_SHOWN or file.problem is not None:
            for line in describe(file, instruments):
                say(line)
    if (hidden := len(files) - _FILES_SHOWN) > 0:
        say(f"and {hidden:,} more files")
    return {file.problem.message for file in files if file.problem is not None}


def show(report: LoadReport, said: Collection[str] = ()) -> None:
    """What became of every row: details to standard error, the summary to standard output.

    Problems of files that were `said` before are only counted.
    """
    for file in report.files:
        for note in file.notes:
            say(f"{file.file.name}: {note}")
        for rejection in file.rejections[:_REASONS_SHOWN]:
            lines = ", ".join(f"{row.line:,}" for row in rejection.examples[:3])
            rows = f"{rejection.rows:,} row{'s' * (rejection.rows != 1)}"
            say(f"{file.file.name}: {rows} to quarantine: {rejection.reason} (line {lines})")
        if (hidden := len(file.rejections) - _REASONS_SHOWN) > 0:
            say(f"{file.file.name}: and {hidden} other reasons")
        if file.problem is not None and file.problem.message not in said:
            say(f"{file.file.name}: not loaded to its end: {file.problem.message}")
    totals = report.totals
    counts = ("inserted", "replaced", "unchanged", "rejected", "quarantined", "unwritten")
    what = ", ".join(f"{getattr(totals, name):,} {name}" for name in counts if getattr(totals, name))
    pace = f" in {report.seconds:,.1f} s ({totals.read / report.seconds:,.0f} rows/s)" if report.seconds else ""
    typer.echo(f"{totals.read:,} rows read{pace}: {what or 'nothing to do'}")
    for name, means in (("duplicates", "the same values"), ("conflicts", "other values")):
        if line := _met(totals, name):
            typer.echo(f"{name}, rows whose key another has with {means}: {line}")
    if left := sum(file.problem is not None for file in report.files):
        typer.echo(f"{left:,} of {len(report.files):,} files were not loaded to their end")
    typer.echo(f"batch {report.batch}, {totals.commits:,} commits")
    if report.quarantine:
        typer.echo(f"bad rows are in {report.quarantine}")
    if report.certificate is not None:
        typer.echo(_certified(report.certificate))
    for kept in report.set_aside:
        say(f"{kept.rows:,} rows could not be written and are kept in {kept.path}: {kept.problem.message}")
    if report.grades:
        counted = ", ".join(f"{count:,} {grade}" for grade, count in report.grades.items())
        typer.echo(f"quality of the series: {counted} (`tapehouse quality` says why)")
    if report.interrupted:
        batch = report.resume or report.batch
        say(f"interrupted: what was committed stays; go on with: tapehouse load FILES --resume {batch}")


def _certified(found: Certified) -> str:
    said = f"certified: {found.series:,} series, {found.rows:,} rows are kept as they were read"
    parts = {"current": found.rows - found.unchanged - found.lost, "lost to other rows": found.lost}
    parts["there before"] = found.unchanged - found.repeated
    parts["repeated"] = found.repeated
    return f"{said}: " + ", ".join(f"{rows:,} {what}" for what, rows in parts.items() if rows)


def _met(totals: Counts, name: str) -> str:
    places = (("in_file", "inside one file"), ("between_files", "between files"), ("in_store", "with the store"))
    counts = ((getattr(totals, f"{name}_{place}"), where) for place, where in places)
    return ", ".join(f"{count:,} {where}" for count, where in counts if count)


def standing_said(certificate: Certificate) -> list[str]:
    """What a certificate that was checked again proves, and what of it is current."""
    from tapehouse.bulk.base import BATCHES_FOUND

    now = certificate.standing
    if now is None:  # an older server made it
        return [f"{certificate.batch}: what it stored is kept as it was read"]
    intact = f"{certificate.batch}: {now.series:,} series, {now.written:,} rows are kept as they were read"
    if not now.written:
        lines = [f"{certificate.batch}: {now.series:,} series, no rows are this batch's own"]
    elif now.current == now.written:
        lines = [f"{intact}; all of them are current"]
    else:
        some = f"{now.current:,} of them are" if now.current else "none of them is"
        why = f"undone by {now.undone_by}" if now.undone_by else "the others were replaced, deleted or lost"
        lines = [f"{intact}; {some} current: {why}"]
    if now.unchanged:
        by = ", ".join(each.batch + f" (undone by {each.undone_by})" * bool(each.undone_by) for each in now.found)
        more = ", ..." if len(now.found) == BATCHES_FOUND else ""
        lines.append(f"{now.unchanged:,} rows were there before" + (f", brought by {by}{more}" if by else ""))
    return lines


def exit_code(report: LoadReport, strict: bool) -> int:
    """0 when every file was read to its end; with `strict`, and no row was bad."""
    if report.interrupted:
        return INTERRUPTED
    if not report.complete:
        return 1
    return 1 if strict and report.totals.quarantined else 0
