"""How far a command is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from tapehouse.cli.context import say

SECONDS_BETWEEN_LINES = 5.0

T = TypeVar("T")


class Step(NamedTuple):
    """How much of it is done (None: nobody knows of how much), with what, and in a few words."""

    done: float
    total: float | None
    what: str
    said: str


@contextmanager
def progress(step: Callable[[T], Step]) -> Iterator[Callable[[T], None]]:
    """What to call with each news, which `step` puts into words: a bar, or a line every few seconds."""
    if not sys.stderr.isatty():
        yield _lines(step)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = [TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[said]}")]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, said="")

        def show(news: T) -> None:
            done, total, what, said = step(news)
            bar.update(task, total=total, completed=done, description=what, said=said)

        yield show


def _lines(step: Callable[[T], Step]) -> Callable[[T], None]:
    last = time.monotonic()

    def show(news: T) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            one = step(news)
            say(f"{one.what}: {one.said}")

    return show
