"""How far a load is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tapehouse.cli.context import say

if TYPE_CHECKING:
    from tapehouse.bulk import Progress

SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def progress() -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal, a line every few seconds elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = [TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[said]}")]
    with Bars(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, said="")

        def show(done: Progress) -> None:
            bar.update(task, total=done.bytes_total, completed=done.bytes_done, description=done.file, said=said(done))

        yield show


class _Lines:
    """Progress where no bar can be drawn: now and then a line."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, done: Progress) -> None:
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            say(f"{done.file}: {said(done)}")


def said(done: Progress) -> str:
    """How far a load is, in a few words."""
    share = done.bytes_done / done.bytes_total if done.bytes_total else 1.0
    left = "" if done.eta_s is None else f", {done.eta_s:,.0f} s left"
    bad = f", {done.quarantined:,} bad" if done.quarantined else ""
    return f"{share:.0%}, {done.rows:,} rows, {done.rows_per_s:,.0f} rows/s{bad}{left}"
