"""What is exported, into which files, as of which commit, and what the manifest says of it."""

from __future__ import annotations

import hashlib
import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.export.parts import NEW_YORK, T0, TRADES, Held, bars, filled, minutes, read_file, rows_of, stored

from tapehouse.codec.content import sums_of
from tapehouse.errors import InvalidRequest, InvalidSymbol, NotFound, NotSupported, UnknownColumn
from tapehouse.export.base import MANIFEST, UNFINISHED, ExportOptions, Manifest, Progress, partition_of
from tapehouse.export.run import export
from tapehouse.export.verify import verify
from tapehouse.model import HOUR_NS, SCHEMAS, Interval, Kind
from tapehouse.query.base import Request
from tapehouse.store.base import Selection
from tapehouse.store.memory import MemoryStore


@pytest.fixture(scope="module")
def held() -> Held:
    return Held(filled())


def exported(held: Held, folder: Path, **options: Any) -> Manifest:
    if "partition" in options:
        options["partition"] = partition_of(options["partition"])
    return export(held, folder, ExportOptions(**options), threads=2)


def rows(folder: Path, manifest: Manifest, kind: Kind, interval: Interval | None = None) -> list[dict[str, Any]]:
    """The rows of all files of a series, in order."""
    files = [file for file in manifest.files if (file.kind, file.interval) == (kind, interval)]
    found = [row for file in files for row in read_file(folder / file.path)]
    return sorted(found, key=lambda row: (row["symbol"], row["timestamp"]))


def test_without_options_it_is_everything(held: Held, tmp_path: Path) -> None:
    manifest = exported(held, tmp_path / "out")
    assert {(file.kind, file.interval) for file in manifest.files} == {
        (Kind.BARS, Interval.M1),
        (Kind.BARS, Interval.D1),
        (Kind.TRADES, None),
        (Kind.QUOTES, None),
    }
    for kind, interval in (
        (Kind.BARS, Interval.M1),
        (Kind.BARS, Interval.D1),
        (Kind.TRADES, None),
        (Kind.QUOTES, None),
    ):
        assert rows(tmp_path / "out", manifest, kind, interval) == stored(held.store, kind, interval)


@pytest.mark.parametrize("partition", ["none", "symbol", "year", "month", "day", "symbol,month", "day,symbol"])
def test_every_partition_has_the_same_rows_in_order(held: Held, tmp_path: Path, partition: str) -> None:
    manifest = exported(held, tmp_path, partition=partition)
    assert rows(tmp_path, manifest, Kind.BARS, Interval.M1) == stored(held.store, Kind.BARS, Interval.M1)
    for file in manifest.files:
        found = read_file(tmp_path / file.path)
        keys = [(row["symbol"], row["timestamp"]) for row in found]
        assert keys == sorted(keys)
        assert ("symbol" in partition) <= (len(file.symbols) == 1)


def test_the_manifest_says_what_the_files_are(held: Held, tmp_path: Path) -> None:
    manifest = exported(held, tmp_path, format="csv", partition="symbol,month")
    document = json.loads((tmp_path / MANIFEST).read_bytes())
    assert msgspec.convert(document, Manifest) == manifest
    assert (document["commit"], document["format"]) == (held.store.head(), "csv")
    assert document["options"]["partition"] == ["symbol", "month"]
    assert [each["timezone"] for each in document["instruments"]] == ["America/New_York"]
    assert manifest.rows == sum(file.rows for file in manifest.files)
    for file in manifest.files:
        data = (tmp_path / file.path).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.bytes, file.sha256)
        found = read_file(tmp_path / file.path)
        assert len(found) == file.rows
        assert file.symbols == tuple(dict.fromkeys(row["symbol"] for row in found))
        assert (file.first, file.last) == (found[0]["timestamp"], found[-1]["timestamp"])
    on_disk = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert on_disk == {MANIFEST, *(file.path for file in manifest.files)}


def test_the_content_hash_is_that_of_the_stored_rows(held: Held, tmp_path: Path) -> None:
    by_month = exported(held, tmp_path / "months", partition="month")
    by_symbol = exported(held, tmp_path / "symbols")
    table = held.store.read(Selection(kind=Kind.TRADES, columns=tuple(SCHEMAS[Kind.TRADES].names))).table()
    expected = {symbol: f"{each.hash:016x}" for symbol, each in sums_of(Kind.TRADES, table).items()}
    assert by_month.content == by_symbol.content
    assert by_symbol.content["trades"] == expected
    assert exported(held, tmp_path / "part", kinds=(Kind.TRADES,), columns=("price",)).content == {}


def test_the_same_rows_are_the_same_bytes(held: Held, tmp_path: Path) -> None:
    for format_ in ("parquet", "arrow", "csv.gz", "jsonl.zip", "csv.xz", "csv.zst"):
        one, two = (exported(held, tmp_path / format_ / name, format=format_) for name in ("one", "two"))
        assert one.files == two.files


def test_periods_are_those_of_the_instruments_zone(tmp_path: Path) -> None:
    store = MemoryStore()
    store.put_instruments([NEW_YORK])
    late = T0 + 14 * HOUR_NS  # 2024-01-03T04:30Z is the 2nd in New York
    store.write(Kind.BARS, bars("A", [T0, late, late + HOUR_NS]), interval=Interval.M1)
    for partition in ("day", "symbol,day"):
        manifest = exported(Held(store), tmp_path / partition, partition=partition)
        assert [(file.path[-18:], file.rows) for file in manifest.files] == [
            ("2024-01-02.parquet", 2),
            ("2024-01-03.parquet", 1),
        ]


@given(
    low=st.integers(0, 400),
    length=st.integers(1, 400),
    partition=st.sampled_from(["none", "symbol", "day", "symbol,day", "month"]),
    dates=st.booleans(),
)
def test_a_span_is_cut_alike_however_the_files_are(
    tmp_path_factory: pytest.TempPathFactory, low: int, length: int, partition: str, dates: bool
) -> None:
    folder = tmp_path_factory.mktemp("span")
    start: int | date = T0 + low * HOUR_NS
    end: int | date = T0 + (low + length) * HOUR_NS
    if dates:
        start = date(2024, 1, 2) + timedelta(low // 24)
        end = start + timedelta(1 + length // 24)
    store = MemoryStore()
    store.put_instruments([NEW_YORK])
    for symbol in "AB":
        store.write(Kind.BARS, bars(symbol, minutes(100, step=7 * HOUR_NS)), interval=Interval.M1)
    source = Held(store)
    manifest = exported(source, folder, start=start, end=end, partition=partition)
    request = Request(
        kind=Kind.BARS, interval=Interval.M1, start=start, end=end, columns=tuple(SCHEMAS[Kind.BARS].names)
    )
    with source.rows(request) as answer:
        wanted = sum(batch.num_rows for batch in answer.batches)
    assert manifest.rows == wanted
    keys = [(r["symbol"], r["timestamp"]) for file in manifest.files for r in read_file(folder / file.path)]
    assert len(set(keys)) == wanted


def test_selections(held: Held, tmp_path: Path) -> None:
    def symbols(name: str, **options: Any) -> set[str]:
        manifest = exported(held, tmp_path / name, **options)
        return {symbol for file in manifest.files for symbol in file.symbols}

    assert symbols("named", symbols=("AAPL", "CON")) == {"AAPL", "CON"}
    assert symbols("match", match=("B*", "?APL")) == {"AAPL", "BRK-D", "BTC/USD"}
    assert symbols("both", symbols=("CON",), match=("^*",)) == {"CON", "^GSPC"}
    assert symbols("kind", kinds=(Kind.QUOTES,)) == {"AAPL"}
    assert symbols("interval", intervals=(Interval.D1,)) == {"AAPL"}
    assert symbols("source", source="r") == {"BTC/USD"}
    narrow = exported(held, tmp_path / "columns", intervals=(Interval.D1,), columns=("close",))
    assert list(read_file(tmp_path / "columns" / narrow.files[0].path)[0]) == ["symbol", "timestamp", "close"]


def test_what_makes_no_sense_is_refused_and_leaves_nothing(held: Held, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for options, error in (
        ({"format": "xlsx"}, InvalidRequest),
        ({"partition": "week"}, InvalidRequest),
        ({"partition": "month,day"}, InvalidRequest),
        ({"symbols": ()}, InvalidRequest),
        ({"symbols": ("a b",)}, InvalidSymbol),
        ({"symbols": ("NOPE",)}, NotFound),
        ({"match": ("NOPE*",)}, NotFound),
        ({"intervals": (Interval.W1,)}, NotFound),
        ({"columns": ("price",)}, UnknownColumn),
        ({"resample": True}, InvalidRequest),
        ({"as_of": 99}, NotFound),
    ):
        with pytest.raises(error):
            exported(held, out, **options)
        assert not out.exists()
    none = r"^no stored symbol matches 'NOPE\*' or 'Z\?'; 6 are stored: AAPL, BRK-D, BTC/USD, CON, \^GSPC, \.\.\.$"
    with pytest.raises(NotFound, match=none):
        exported(held, out, match=("NOPE*", "Z?"))
    with pytest.raises(NotFound, match=r"no bars of 1w are stored to export; stored: .*--resample"):
        exported(held, out, intervals=(Interval.W1,))
    with pytest.raises(NotFound, match="stored: nothing"):
        exported(Held(MemoryStore()), out)


def test_a_span_without_rows_is_an_export_without_files(held: Held, tmp_path: Path) -> None:
    for partition in ("none", "symbol", "month"):
        manifest = exported(
            held, tmp_path / partition, start=date(1999, 1, 1), end=date(1999, 2, 1), partition=partition
        )
        assert (manifest.rows, manifest.files) == (0, ())
        assert verify(tmp_path / partition).ok


def test_bars_that_are_not_stored_are_made_when_asked_for(held: Held, tmp_path: Path) -> None:
    for partition in ("symbol", "none", "month"):
        manifest = exported(held, tmp_path / partition, intervals=(Interval.D1,), resample=True, partition=partition)
        found = rows(tmp_path / partition, manifest, Kind.BARS, Interval.D1)
        with held.rows(Request(kind=Kind.BARS, interval=Interval.D1)) as answer:
            expected = [row for batch in answer.batches for row in batch.to_pylist()]
        assert [(row["symbol"], row["close"], row["made_from"]) for row in found] == [
            (row["symbol"], row["close"], row["made_from"]) for row in expected
        ]
        assert {row["made_from"] for row in found} == {"stored", "1m"}
        assert manifest.content == {}


class Busy(Held):
    """A store that is written to while it is read."""

    def rows(self, request: Request) -> Any:
        if request.limit is None:
            self.store.write(
                Kind.BARS,
                bars("AAPL", minutes(30), close=[100.0 + len(self.asked)] * 30, low=[1.0] * 30, high=[999.0] * 30),
                interval=Interval.M1,
            )
            self.store.delete(Kind.BARS, ["CON"], interval=Interval.M1)
            self.store.write(Kind.BARS, bars("NEW", minutes(3)), interval=Interval.M1)
        return super().rows(request)


def test_all_files_are_of_one_commit_whatever_is_written_meanwhile(tmp_path: Path) -> None:
    source = Busy(filled())
    before, head = stored(source.store, Kind.BARS, Interval.M1), source.store.head()
    manifest = exported(source, tmp_path)
    assert manifest.commit == head < source.store.head()
    assert rows(tmp_path, manifest, Kind.BARS, Interval.M1) == before


@pytest.mark.parametrize("partition", ["none", "symbol", "month"])
def test_as_of_an_earlier_commit_has_what_was_deleted_since(tmp_path: Path, partition: str) -> None:
    source = Held(filled())
    before, head = stored(source.store, Kind.BARS, Interval.M1), source.store.head()
    source.store.delete(Kind.BARS, ["CON", "AAPL"], interval=Interval.M1)
    source.store.write(Kind.BARS, bars("NEW", [T0]), interval=Interval.M1)
    then = exported(source, tmp_path / "then", as_of=head, partition=partition)
    assert rows(tmp_path / "then", then, Kind.BARS, Interval.M1) == before
    now = exported(source, tmp_path / "now", partition=partition)
    assert rows(tmp_path / "now", now, Kind.BARS, Interval.M1) == stored(source.store, Kind.BARS, Interval.M1)
    by_time = source.store.commits(after=head - 1, limit=1)[0].recorded
    assert exported(source, tmp_path / "time", as_of=by_time, partition=partition).files == then.files


def test_only_what_is_stored_is_asked_for(held: Held, tmp_path: Path) -> None:
    held.asked.clear()
    exported(held, tmp_path)
    assert all(request.stored for request in held.asked if request.kind is Kind.BARS)
    assert all(request.as_of == held.store.head() for request in held.asked if request.limit is None)


def test_a_store_that_does_not_remember_cannot_be_exported(tmp_path: Path) -> None:
    class Forgetful(MemoryStore):
        capabilities = frozenset()  # type: ignore[assignment]

    store = Forgetful()
    store.write(Kind.TRADES, rows_of(Kind.TRADES, TRADES))
    with pytest.raises(NotSupported):
        exported(Held(store), tmp_path / "out")


def test_progress_is_told(held: Held, tmp_path: Path) -> None:
    told: list[Progress] = []
    manifest = export(held, tmp_path, progress=told.append)
    assert told[-1].rows_total == manifest.rows
    assert told[-1].rows == manifest.rows
    assert (told[-1].files, told[-1].bytes) == (len(manifest.files), manifest.bytes)


def test_many_symbols_are_asked_for_in_lots(tmp_path: Path) -> None:
    store = MemoryStore()
    for n in range(230):
        store.write(Kind.BARS, bars(f"S{n:03}", [T0]), interval=Interval.M1)
    source = Held(store)
    for partition in ("symbol", "none", "year"):
        source.asked.clear()
        assert exported(source, tmp_path / partition, partition=partition).rows == 230
        assert max(len(request.symbols or ()) for request in source.asked) <= 100


def test_the_whole_range_of_time(tmp_path: Path) -> None:
    store = MemoryStore()
    ends = [-(2**63) + 2, 2**63 - 2]
    store.write(Kind.TRADES, rows_of(Kind.TRADES, [{**TRADES[0], "timestamp": time} for time in ends]))
    for partition in ("none", "symbol", "year", "month"):
        manifest = exported(Held(store), tmp_path / partition, partition=partition)
        assert [row["timestamp"] for row in rows(tmp_path / partition, manifest, Kind.TRADES)] == ends


def test_verify_finds_what_became_of_files(held: Held, tmp_path: Path) -> None:
    manifest = exported(held, tmp_path, format="csv")
    assert verify(tmp_path).ok
    first, second, third, *_ = (tmp_path / file.path for file in manifest.files)
    first.write_bytes(first.read_bytes()[:-1])
    data = bytearray(second.read_bytes())
    data[-2] ^= 1
    second.write_bytes(data)
    third.unlink()
    (tmp_path / "mine.csv").touch()
    found = verify(tmp_path)
    assert [(fault.path, fault.problem.split()[0]) for fault in found.faults] == [
        (file.path, what) for file, what in zip(manifest.files, ("has", "has", "is"), strict=False)
    ]
    assert found.unknown == ("mine.csv",)
    (tmp_path / UNFINISHED).touch()
    assert "not finished" in verify(tmp_path).faults[-1].problem
    with pytest.raises(NotFound):
        verify(tmp_path / "nothing")
