"""A simulated market as a feed."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import pyarrow as pa

from tapehouse.model import SECOND_NS, Kind
from tapehouse.sources.base import Batch
from tapehouse.sources.sim.faults import Done, Faults, Spoiled, spoil
from tapehouse.sources.sim.market import SimMarket

EVERY_S = 0.02
MOST_S = 1.0


class SimFeed:
    """A market that is given out as its time passes.

    It is due every `every_s`, and gives at most `most_s` of the market's time at once, so that one who was away catches
    up in pieces. With `faults`, what they took is said by the next batch's `skipped`, and `done` counts them.
    """

    def __init__(
        self,
        market: SimMarket,
        *,
        name: str = "sim",
        every_s: float = EVERY_S,
        most_s: float = MOST_S,
        heartbeat_s: float | None = None,
        faults: Faults | None = None,
        seed: int = 0,
    ) -> None:
        if faults is not None:
            faults.check()
        self.name, self.heartbeat_s = name, heartbeat_s
        self._market, self._faults, self._seed = market, faults, seed
        self._every_ns, self._most_ns = int(every_s * SECOND_NS), int(most_s * SECOND_NS)
        self._batches, self._lost = 0, 0
        self.done = Done()

    def next(self, now_ns: int) -> list[Batch]:
        """See `Feed.next`."""
        opens = self._market.opens_ns()
        if opens is None or now_ns < opens:
            return []
        made = self._market.step(min(now_ns + 1, opens + self._most_ns))
        pairs = ((Kind.TRADES, made.trades), (Kind.QUOTES, made.quotes))
        return [batch for kind, rows in pairs if rows is not None for batch in self._given(kind, rows)]

    def next_due_ns(self) -> int | None:
        """See `Feed.next_due_ns`."""
        opens = self._market.opens_ns()
        return None if opens is None else max(opens, self._market.until_ns - 1 + self._every_ns)

    def _given(self, kind: Kind, rows: pa.RecordBatch) -> Iterator[Batch]:
        if self._faults is None:
            yield Batch(kind, None, rows)
            return
        spoiled = spoil(rows, self._faults, (self._seed, self._batches))
        self._batches += 1
        self._count(spoiled.done)
        yield from self._pieces(kind, spoiled, rows.num_rows)

    def _pieces(self, kind: Kind, spoiled: Spoiled, rows: int) -> Iterator[Batch]:
        """A batch for each run of records without a gap."""
        numbers = np.concatenate([[-1], spoiled.numbers, [rows]])
        missing = np.maximum(np.diff(numbers) - 1, 0)
        edges = np.unique(np.concatenate([[0], np.flatnonzero(missing[:-1]), [len(spoiled.numbers)]]))
        for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            yield Batch(kind, None, spoiled.rows.slice(first, last - first), self._lost + int(missing[first]))
            self._lost = 0
        self._lost += int(missing[-1])

    def _count(self, done: Done) -> None:
        counts = {name: getattr(self.done, name) + getattr(done, name) for name in done.__struct_fields__}
        self.done = msgspec.structs.replace(self.done, **counts)
