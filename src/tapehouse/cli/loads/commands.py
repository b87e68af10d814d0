"""What can be asked of what was loaded: its batches, which can be undone, certificates, quality, and jobs."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tapehouse.cli import tables
from tapehouse.cli.context import INTERRUPTED, Interval, Json, Where, Yes, chosen, confirm, connect, emit, say, timed
from tapehouse.cli.loads.options import Validate
from tapehouse.cli.loads.report import standing_said

if TYPE_CHECKING:
    from tapehouse.bulk.base import Certificate
    from tapehouse.bulk.checks.base import Quality
    from tapehouse.client import Client
    from tapehouse.jobs.base import Job
    from tapehouse.store.base import Batch, Undone

_SHOWN = 10
_COUNTS = ("rows", "inspected", "quarantined", "errors", "warnings", "missing", "holes")
"""All counts that make a grade: what decided it is among them."""

Limit = Annotated[int, typer.Option("--limit", "-n", help="At most so many, newest first.")]


def batches(
    before: Annotated[int | None, typer.Option(help="List those whose last commit is before that one.")] = None,
    limit: Limit = 100,
    json: Json = False,
    store: Where = None,
) -> None:
    """List what loads, uploads and feeds brought, newest first."""
    with connect(store) as client:
        found = client.batches(before=before, limit=limit)
    if json:
        emit([timed(each) for each in found])
        return
    counts = ("inserted", "replaced", "unchanged", "rejected", "deleted")
    rows = [
        (each.name, _when(each.ended), _series(each), *(getattr(each, c) for c in counts), _fate(each))
        for each in found
    ]
    tables.show(("batch", "ended", "of", *counts, ""), rows)


def _series(batch: Batch) -> str:
    return ", ".join(str(kind) if interval is None else f"{kind} {interval}" for kind, interval in batch.series)


def _fate(batch: Batch) -> str:
    if batch.undone_by is not None:
        return f"undone by {batch.undone_by}"
    return f"undo of {batch.undoes}" if batch.undoes is not None else ""


def undo(
    batch: Annotated[str, typer.Argument(metavar="BATCH", help="Its name; `tapehouse batches` lists them.")],
    yes: Yes = False,
    json: Json = False,
    store: Where = None,
) -> None:
    """Take back what a batch did. An undo is a batch too, and can be undone."""
    with connect(store) as client:
        found = client.batches(batch, limit=1)
        if found and found[0].undone_by is None:
            say(_would_take_back(found[0]))
            confirm("Take it back?", yes)
        undone = client.undo(batch)
    if json:
        emit(timed(undone))
    else:
        _show_undone(undone)


def _would_take_back(batch: Batch) -> str:
    counts = ("inserted", "replaced", "rejected", "deleted")
    what = ", ".join(f"{getattr(batch, name):,} {name}" for name in counts if getattr(batch, name)) or "no rows"
    return (
        f"{batch.name} ({_series(batch)}) ended {_when(batch.ended)} in {batch.commits:,} commits: {what}. Inserted "
        "rows go, replaced and deleted ones come back; rows that others wrote or deleted since stay as they are."
    )


def _show_undone(undone: Undone) -> None:
    commits = ", ".join(str(commit.number) for commit in undone.commits) or "none"
    typer.echo(f"{undone.removed:,} rows removed, {undone.restored:,} brought back, commits {commits}")
    if undone.left:
        typer.echo(f"{undone.left:,} rows were changed since, and stay as they are:")
    for kind, interval, symbol, time, commit in undone.examples[:_SHOWN]:
        typer.echo(f"  {symbol} {interval or kind} {_when(time)}, by commit {commit}")
    if undone.left > len(undone.examples[:_SHOWN]):
        typer.echo("  ...")


def certify(
    batch: Annotated[str | None, typer.Argument(metavar="[BATCH]", help="Default: list the certificates.")] = None,
    json: Json = False,
    store: Where = None,
) -> None:
    """Compare what a load read with what is kept of it, say how much is current; or list the certificates."""
    with connect(store) as client:
        if batch is not None:
            certificate = client.certify(batch)
            _show_certificate(certificate, json)
            return
        found = client.certificates()
    if json:
        emit([timed(each) for each in found])
        return
    names = ("batch", "checked", "series", "rows", "disagreeing")
    rows = [(each.batch, _when(each.checked), each.series, each.rows, each.disagreeing) for each in found]
    tables.show(names, rows)


def _show_certificate(certificate: Certificate, as_json: bool) -> None:
    if as_json:
        emit(timed(certificate))
        return
    for line in standing_said(certificate):
        typer.echo(line)


def quality(
    symbols: Annotated[list[str] | None, typer.Argument(metavar="[SYMBOL]...", help="Default: all.")] = None,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="bars, trades or quotes; default: all.")] = None,
    interval: Interval = None,
    check: Annotated[bool, typer.Option("--check", help="Look at the stored rows anew, and keep the grade.")] = False,
    validate: Annotated[
        Validate | None, typer.Option(help="With --check: how many rows are looked at; default: sample.")
    ] = None,
    json: Json = False,
    store: Where = None,
) -> None:
    """Show the grade of each series, from A to F, and what made it; with --check, look anew."""
    if validate is not None and not check:
        raise typer.BadParameter("says how much --check looks at, which is not given", param_hint="--validate")
    with connect(store) as client:
        if check:
            given = {"--kind": kind, "--interval": interval, "--validate": validate and validate.value}
            found = _checked(client, symbols or [], given | {"--store": store or chosen()})
        else:
            found = client.quality(symbols or None, kind=kind, interval=interval)
    if json:
        emit([timed(each) for each in found])
        return
    names = ("symbol", "kind", "interval", "grade", "decided by", *_COUNTS)
    tables.show(names, [_graded(each) for each in found])
    if stale := sum(each.stale for each in found):
        say(f"{stale:,} grades are stale: rows may be gone that they were made of (`tapehouse quality --check`)")
    if symbols:
        _say_findings(found)
    elif not found:
        say("nothing was inspected yet: a load does it (`tapehouse load --validate full`)")


def _checked(client: Client, symbols: list[str], given: dict[str, str | None]) -> list[Quality]:
    """The grades, made anew as the options say; Ctrl-C ends it, and then a line says how to have the rest."""
    how = given["--validate"] or Validate.SAMPLE.value
    try:
        return client.check_quality(symbols or None, kind=given["--kind"], interval=given["--interval"], validate=how)
    except KeyboardInterrupt:
        said = [word for name, value in given.items() if value is not None for word in (name, value)]
        again = shlex.join(["tapehouse", "quality", *symbols, "--check", *said])
        say("interrupted: series that were done with have their new grade, the others the one they had;")
        say(f"  look at all of them again with: {again}")
        raise typer.Exit(INTERRUPTED) from None


def _graded(each: Quality) -> tuple[Any, ...]:
    interval = None if each.interval is None else str(each.interval)
    grade = None if each.grade is None else f"{each.grade} (stale)" if each.stale else str(each.grade)
    counts = (getattr(each.tally, name) for name in _COUNTS)
    return each.symbol, str(each.kind), interval, grade, each.decided_by, *counts


def _say_findings(found: list[Quality]) -> None:
    for each in found:
        for finding in each.findings[:_SHOWN]:
            series = f"{finding.symbol} {finding.interval or finding.kind}"
            typer.echo(
                f"\n{series}: {finding.severity} {finding.rule}, {finding.count:,} places, {finding.rows:,} rows"
            )
            for example in finding.examples[:3]:
                typer.echo(f"  {_when(example.time)}  {example.value}; expected {example.expected}")


def jobs(
    cancel: Annotated[str | None, typer.Option(metavar="JOB", help="Cancel that one instead of listing all.")] = None,
    limit: Limit = 20,
    json: Json = False,
    store: Where = None,
) -> None:
    """List the loads of the owner of the store: what waits, runs, and ran."""
    with connect(store) as client:
        found = client.jobs(limit=limit) if cancel is None else [client.cancel_job(cancel)]
    if json:
        emit([timed(each) for each in found])
        return
    rows = [(each.id, each.kind, str(each.state), _when(each.created), each.batch, _how_far(each)) for each in found]
    tables.show(("job", "kind", "state", "created", "batch", ""), rows)
    for each in found:
        if each.error is not None:
            say(f"{each.id}: {each.error.message}")
        for problem in each.problems:
            say(f"{each.id}: not loaded: {problem.message}")
        if each.refused > len(each.problems):
            say(f"{each.id}: {each.refused - len(each.problems):,} more files were not loaded")
        if each.resume is not None:
            say(f"{each.id}: {each.resume}")


def _how_far(job: Job) -> str:
    from tapehouse.cli.loads.progress import said

    if job.refused:
        return f"{job.files - job.refused:,} of {job.files:,} files loaded"
    if job.progress is not None:
        return f"{job.progress.file}: {said(job.progress)}"
    return " ".join(map(shlex.quote, job.what[:3])) + (" ..." if len(job.what) > 3 else "")


def _when(time: int) -> str:
    from tapehouse.times import format_time

    return format_time(time)
