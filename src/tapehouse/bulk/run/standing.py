"""What has become of what a load stored: how much of it is current, and whose the rows are that it found in the store.

A certificate proves that rows are kept as they were read. Whether they are what a reader gets is another question.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tapehouse.bulk.base import Certificate, Held, Standing
from tapehouse.model import Interval, Kind
from tapehouse.store.base import Capability, Selection

_PAGE = 1_000


class Span:
    """The times between which the rows of some record batches are, UTC nanoseconds; `end` is exclusive."""

    def __init__(self) -> None:
        self.start, self.end = 0, 0

    def add(self, rows: pa.RecordBatch) -> None:
        if rows.num_rows == 0:
            return
        times = rows.column("timestamp").to_numpy().view(np.int64)
        first, last = int(times.min()), int(times.max())
        known = self.end > self.start
        self.start = min(self.start, first) if known else first
        self.end = max(self.end, last + 1) if known else last + 1


def standing(store: Any, certificate: Certificate, spans: dict[tuple[Kind, Interval | None], Span]) -> Standing:
    """How much of what the certificate is about is current now; `spans` are the times of what its batch stored."""
    mine = _commits(store, certificate)
    names = [certificate.batch, *certificate.found]
    undone = _undone_by(store, names)
    return Standing(
        series=len(certificate.series),
        written=sum(each.written for each in certificate.series),
        current=sum(_current(store, certificate, series, span, mine) for series, span in spans.items()),
        unchanged=sum(each.unchanged for each in certificate.series),
        undone_by=undone.get(certificate.batch),
        found=[Held(batch=name, undone_by=undone.get(name)) for name in certificate.found],
    )


def _commits(store: Any, certificate: Certificate) -> np.ndarray:
    """The commits of the certificate's batch that it is about."""
    found, after = list[int](), certificate.after
    while after < certificate.head and (commits := store.commits(after=after, limit=_PAGE)):
        found += [each.number for each in commits if each.batch == certificate.batch]
        after = commits[-1].number
    return np.array([number for number in found if number <= certificate.head], np.int64)


def _undone_by(store: Any, names: Sequence[str]) -> dict[str, str | None]:
    if Capability.UNDOES not in store.capabilities:
        return {}
    return {each.name: each.undone_by for each in store.batches(names, limit=len(names))}


def _current(
    store: Any, certificate: Certificate, series: tuple[Kind, Interval | None], span: Span, mine: np.ndarray
) -> int:
    """How many rows of these commits are current."""
    kind, interval = series
    symbols = tuple(each.symbol for each in certificate.series if (each.kind, each.interval) == series and each.written)
    if not symbols or span.end == span.start:
        return 0
    wanted = Selection(
        kind=kind, interval=interval, symbols=symbols, start=span.start, end=span.end, columns=("commit",)
    )
    with store.read(wanted) as rows:
        return sum(int(np.isin(part.column("commit").to_numpy(), mine).sum()) for part in rows)


class Holders:
    """The batches that brought rows which a load found in the store: the names of the first `most`."""

    def __init__(self, store: Any, most: int) -> None:
        self._store, self._most = store, most
        self._known = set[int]()

    def add(self, commits: Iterable[int], names: list[str]) -> None:
        """Put the names of these commits' batches to the others, in the order of the commits."""
        for number in sorted(set(commits)):
            if len(names) >= self._most:
                return
            if number not in self._known:
                self._look(number, names)

    def _look(self, number: int, names: list[str]) -> None:
        """A page of commits from that one on is known afterwards, as far as it has the same batch."""
        page = self._store.commits(after=number - 1, limit=_PAGE)
        name = page[0].batch
        self._known.update(each.number for each in page if each.batch == name)
        if name is not None and name not in names:
            names.append(name)
