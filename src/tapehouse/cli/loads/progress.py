"""How far a load is."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from tapehouse.cli import tables
from tapehouse.cli.progress import Step
from tapehouse.cli.progress import progress as shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapehouse.bulk import Progress


def progress() -> AbstractContextManager[Callable[[Progress], None]]:
    """A bar on a terminal, a line every few seconds elsewhere."""
    return shown(lambda done: Step(done.bytes_done, done.bytes_total, done.file, said(done)))


def said(done: Progress) -> str:
    """How far a load is, in a few words."""
    share = done.bytes_done / done.bytes_total if done.bytes_total else 1.0
    left = "" if done.eta_s is None else f", {done.eta_s:,.0f} s left"
    if done.sending:
        return f"{share:.0%}, {tables.size(done.bytes_done)} of {tables.size(done.bytes_total)} sent{left}"
    bad = f", {done.quarantined:,} bad" if done.quarantined else ""
    return f"{share:.0%}, {done.rows:,} rows, {done.rows_per_s:,.0f} rows/s{bad}{left}"
