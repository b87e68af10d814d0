"""What a load read is what the store gives back, or the load says of which symbols it is not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse import bulk
from tapehouse.bulk.base import Held, Standing
from tapehouse.bulk.certificate import certificate_of, certify
from tapehouse.errors import NotFound, NotSupported, StoreDamaged
from tapehouse.model import Commit, Interval, Kind, OnConflict
from tapehouse.store.base import Capability, Reading
from tapehouse.store.duckdb import DuckDBStore
from tapehouse.store.memory import MemoryStore

HEADER = "symbol,timestamp,open,high,low,close,volume"
BARS = [f"{'AB'[n % 2]},2024-01-02T{n // 120:02}:{n // 2 % 60:02}:00Z,10,12,9,11,{n}" for n in range(600)]


@pytest.fixture(params=["memory", "duckdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "memory":
        yield MemoryStore()
        return
    opened = DuckDBStore(tmp_path / "data")
    yield opened
    opened.close()


def load(store: Any, folder: Path, rows: list[str], name: str = "a.csv", header: str = HEADER, **more: Any) -> Any:
    path = folder / name
    path.write_text("\n".join([header, *rows]) + "\n")
    options = bulk.LoadOptions(**{"block_bytes": 2_000, "batch_rows": 200, **more})
    return bulk.load([path], store, options, quarantine_dir=folder / "q")


def test_the_certificate_of_a_load_is_kept_and_checked_again(store: Any, tmp_path: Path) -> None:
    report = load(store, tmp_path, BARS, batch="one")
    assert report.certificate is not None
    assert (report.certificate.rows, report.certificate.series) == (600, 2)
    kept = certificate_of(store, "one")
    assert [(each.symbol, each.kind, each.interval, each.rows, each.written) for each in kept.series] == [
        ("A", Kind.BARS, Interval.M1, 300, 300),
        ("B", Kind.BARS, Interval.M1, 300, 300),
    ]
    assert kept.counts == report.totals
    load(store, tmp_path, [row.replace(",12,", ",13,") for row in BARS], "b.csv", batch="two")
    if isinstance(store, DuckDBStore):
        store.compact(everything=True)
    again = certify(store, "one")
    assert again.checked > kept.checked
    assert again.standing is not None
    assert (again.standing.series, again.standing.written, again.standing.current) == (2, 600, 0)
    assert msgspec.structs.replace(again, checked=kept.checked, standing=None) == kept


def test_a_second_load_is_certified_by_what_is_there(store: Any, tmp_path: Path) -> None:
    load(store, tmp_path, BARS, batch="one")
    report = load(store, tmp_path, [*BARS[:500], *BARS[100:102], *(row + "1" for row in BARS[500:])], batch="two")
    assert report.certificate is not None
    assert (report.certificate.rows, report.certificate.unchanged, report.certificate.repeated) == (602, 502, 0)
    assert [(each.rows, each.written, each.unchanged) for each in certify(store, "two").series] == [(301, 50, 251)] * 2


def standing(store: Any, batch: str) -> Standing:
    found = certify(store, batch).standing
    assert found is not None
    return found


def test_what_is_kept_is_not_said_to_be_current(store: Any, tmp_path: Path) -> None:
    load(store, tmp_path, BARS, batch="one")
    assert standing(store, "one") == Standing(series=2, written=600, current=600)
    load(store, tmp_path, [row + "1" for row in BARS[:50]], batch="two")
    assert standing(store, "one").current == 550
    store.delete(Kind.BARS, ["B"], interval=Interval.M1)
    assert (standing(store, "one").current, standing(store, "two").current) == (275, 25)
    store.undo("one")
    assert standing(store, "one") == Standing(series=2, written=600, current=0, undone_by="undo-one")


def test_rows_of_an_undone_batch_are_said_to_be_its_own(store: Any, tmp_path: Path) -> None:
    load(store, tmp_path, BARS, batch="one")
    load(store, tmp_path, BARS, batch="two")
    assert certificate_of(store, "two").found == ["one"]
    assert standing(store, "two").found == [Held(batch="one")]
    store.undo("one")
    held = [Held(batch="one", undone_by="undo-one")]
    assert standing(store, "two") == Standing(series=2, written=0, current=0, unchanged=600, found=held)
    load(store, tmp_path, [*BARS, *BARS[:9]], batch="three")
    assert certificate_of(store, "three").found == []


def test_many_batches_that_had_the_rows_are_named_in_part(store: Any, tmp_path: Path) -> None:
    for number in range(12):
        load(store, tmp_path, BARS[number * 5 : number * 5 + 5], batch=f"one-{number}")
    load(store, tmp_path, BARS[:100], batch="all")
    assert certificate_of(store, "all").found == [f"one-{number}" for number in range(10)]
    assert (standing(store, "all").current, standing(store, "all").unchanged) == (40, 60)


def test_repeats_inside_a_load_are_counted(store: Any, tmp_path: Path) -> None:
    report = load(store, tmp_path, [*BARS, *BARS[:10]])
    assert report.certificate is not None
    assert (report.certificate.unchanged, report.certificate.repeated) == (10, 10)


values = st.sampled_from(["10,12,9,11,1", "10,12,9,11,2", "10,12,9,10,3"])
rows = st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 5), values), min_size=1, max_size=25)
FIRST = [f"{symbol},2024-01-01T00:0{minute}:00Z,1,1,1,1,1" for symbol in "AB" for minute in range(4)]
some_loads = st.lists(
    st.tuples(
        rows, st.sampled_from(["x", "y"]), st.sampled_from(["replace", "keep", "prefer"]), st.sampled_from([3, 7, 100])
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60)
@given(loads=some_loads)
def test_whatever_conflicts_every_row_is_certified(loads: list[Any]) -> None:
    store = MemoryStore()
    with tempfile.TemporaryDirectory() as folder:
        for number, (found, source, on_conflict, batch_rows) in enumerate(loads):
            lines = [f"{symbol},2024-01-02T00:0{minute}:00Z,{rest}" for symbol, minute, rest in found]
            report = load(
                store,
                Path(folder),
                [*FIRST, *lines],
                batch=f"load-{number}",
                source=source,
                on_conflict=OnConflict(on_conflict),
                prefer=("y", "x") if on_conflict == "prefer" else (),
                batch_rows=batch_rows,
                block_bytes=200,
            )
            certified = report.certificate
            assert certified is not None
            assert certified.rows + certified.superseded == report.totals.read == len(FIRST) + len(lines)
            assert certified.unchanged + certified.superseded == report.totals.unchanged
        for number in range(len(loads)):
            certify(store, f"load-{number}")


@settings(max_examples=30)
@given(
    loads=st.lists(
        st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 2), st.sampled_from(["1.5", "2"])), max_size=30),
        min_size=1,
        max_size=3,
    )
)
def test_equal_trades_are_certified_each(loads: list[Any]) -> None:
    store = MemoryStore()
    with tempfile.TemporaryDirectory() as folder:
        for number, found in enumerate(loads):
            lines = [f"{symbol},2024-01-02T00:00:0{second}Z,{price},5" for symbol, second, price in found]
            lines = ["A,2024-01-02T00:00:00Z,1.5,5", *lines]
            header = "symbol,timestamp,price,size"
            report = load(
                store, Path(folder), lines, header=header, source="x", batch=f"load-{number}", batch_rows=5,
                block_bytes=100,
            )  # fmt: skip
            assert report.certificate is not None
            assert report.certificate.rows == len(lines)


class Lossy(MemoryStore):
    """A store that gets one price wrong, now or when it is asked later."""

    wrong = True

    def write(self, kind: Kind, table: pa.Table, **options: Any) -> Commit:
        return super().write(kind, self._spoilt(table) if self.wrong else table, **options)

    def written(self, batch: str, kind: Kind, interval: Interval | None = None) -> Reading:
        found = super().written(batch, kind, interval).table()
        spoilt = self._spoilt(found) if self.wrong else found
        return Reading(spoilt.schema, self.head(), iter(spoilt.to_batches()))

    @staticmethod
    def _spoilt(table: pa.Table) -> pa.Table:
        close, is_b = table["close"], pc.equal(table["symbol"].cast(pa.string()), "B")
        wrong = pc.and_(is_b, pc.equal(table["volume"], 301.0))
        return table.set_column(
            table.column_names.index("close"), "close", pc.if_else(wrong, pc.add(close, 1e-12), close)
        )


def test_one_wrong_bit_is_found_and_named(tmp_path: Path) -> None:
    store = Lossy()
    with pytest.raises(StoreDamaged, match=r"1 of 2 series differ: B \(300 rows of 1m read, 300 found\)") as caught:
        load(store, tmp_path, BARS, batch="one")
    assert caught.value.details["symbols"] == ["B"]
    assert caught.value.details["report"]["totals"]["inserted"] == 600


def test_what_goes_wrong_later_is_found_later(tmp_path: Path) -> None:
    store = Lossy()
    store.wrong = False
    load(store, tmp_path, BARS, batch="one")
    assert certify(store, "one").disagreeing == []
    store.wrong = True
    with pytest.raises(StoreDamaged, match="series differ: B") as caught:
        certify(store, "one")
    assert caught.value.details["symbols"] == ["B"]


def test_without_audits_nothing_is_certified(tmp_path: Path) -> None:
    class Plain(MemoryStore):
        capabilities = MemoryStore.capabilities - {Capability.AUDITS}

    store = Plain()
    assert load(store, tmp_path, BARS, batch="one").certificate is None
    with pytest.raises(NotFound, match="no certificate"):
        certify(store, "one")
    assert load(MemoryStore(), tmp_path, BARS, certificate=False).certificate is None

    class Bare(MemoryStore):
        capabilities = MemoryStore.capabilities - {Capability.DOCUMENTS}

    with pytest.raises(NotSupported):
        certificate_of(Bare(), "one")
