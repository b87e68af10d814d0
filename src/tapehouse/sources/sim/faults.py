"""What goes wrong with feeds, on demand: late, repeated, lost and bad records, and a clock that is off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa

from tapehouse.errors import InvalidRequest
from tapehouse.model import TIMESTAMP


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """How often what goes wrong; each chance is from 0 to 1, and of a record unless it says otherwise.

    A `late` record keeps its place but is of up to `late_ns` earlier; `repeated` ones come twice in a row; with a
    `gap`, `gap_rows` records from that one on are missing; a `bad` one has NaN as its price or bid. `clock` is the
    chance of a batch that all its times are off by `clock_ns`.
    """

    late: float = 0.0
    late_ns: int = 2_000_000_000
    repeated: float = 0.0
    gap: float = 0.0
    gap_rows: int = 5
    bad: float = 0.0
    clock: float = 0.0
    clock_ns: int = 3_000_000_000

    def check(self) -> None:
        """`InvalidRequest` for a chance that is none, or a length that is less than one."""
        for name in ("late", "repeated", "gap", "bad", "clock"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidRequest(f"{name} is a chance from 0 to 1, not {getattr(self, name)}")
        if self.late_ns < 1 or self.gap_rows < 1:
            raise InvalidRequest(f"late_ns and gap_rows are at least 1, not {self.late_ns}, {self.gap_rows}")


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """How many records each fault befell; `off` had a clock that was off."""

    late: int = 0
    repeated: int = 0
    lost: int = 0
    bad: int = 0
    off: int = 0


@dataclass(frozen=True, slots=True)
class Spoiled:
    """What is left of a batch: its rows, the number (from 0) that each had in the batch, and what was done to them.

    A number that is not there was lost; one that is there twice was repeated.
    """

    rows: pa.RecordBatch
    numbers: np.ndarray
    done: Done


def spoil(rows: pa.RecordBatch, faults: Faults, seed: int | Sequence[int]) -> Spoiled:
    """Trades or quotes of the model with faults, the same each time for one seed."""
    faults.check()
    rng = np.random.default_rng(seed)
    kept = _kept(rows.num_rows, faults, rng)
    late, bad, repeated = (rng.random(len(kept)) < chance for chance in (faults.late, faults.bad, faults.repeated))
    off = bool(rng.random() < faults.clock)
    back = np.where(late, rng.integers(1, faults.late_ns + 1, len(kept)), 0)
    times = rows.column("timestamp").cast(pa.int64()).to_numpy().take(kept) - back + faults.clock_ns * off
    price = "price" if "price" in rows.schema.names else "bid"
    prices = rows.column(price).to_numpy().take(kept)
    prices[bad] = np.nan
    places = np.repeat(np.arange(len(kept)), 1 + repeated)
    changed = {"timestamp": pa.array(times).view(TIMESTAMP), price: pa.array(prices)}
    left = rows.take(pa.array(kept))
    columns = [changed.get(name, column) for name, column in zip(left.schema.names, left.columns, strict=True)]
    spoiled = pa.RecordBatch.from_arrays(columns, schema=rows.schema).take(pa.array(places))
    done = Done(
        late=int(late.sum()),
        repeated=int(repeated.sum()),
        lost=rows.num_rows - len(kept),
        bad=int(bad.sum()),
        off=len(kept) * off,
    )
    return Spoiled(spoiled, kept.take(places), done)


def _kept(count: int, faults: Faults, rng: np.random.Generator) -> np.ndarray:
    """The numbers of the rows that no gap took."""
    begins = np.flatnonzero(rng.random(count) < faults.gap)
    ends = np.minimum(begins + faults.gap_rows, count)
    change = np.bincount(begins, minlength=count + 1) - np.bincount(ends, minlength=count + 1)
    return np.flatnonzero(np.cumsum(change)[:count] == 0)
