"""What goes out comes back: loaded into an empty store, every format has the same rows, bit by bit."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.export.parts import QUOTES, T0, TRADES, Held, filled, rows_of

from tapehouse import bulk
from tapehouse.codec.content import Sums, sums_of
from tapehouse.export.base import FORMATS, ExportOptions, Manifest, partition_of
from tapehouse.export.run import export
from tapehouse.model import MINUTE_NS, SCHEMAS, Interval, Kind
from tapehouse.store.base import Selection
from tapehouse.store.memory import MemoryStore

SERIES = [(Kind.BARS, Interval.M1), (Kind.BARS, Interval.D1), (Kind.TRADES, None), (Kind.QUOTES, None)]


def content(store: Any) -> dict[tuple[Kind, Interval | None], Sums]:
    """The hash of the rows of each symbol, with every column."""
    found = {}
    for kind, interval in SERIES:
        table = store.read(Selection(kind=kind, interval=interval, columns=tuple(SCHEMAS[kind].names))).table()
        found[kind, interval] = sums_of(kind, table)
    return found


def there_and_back(store: Any, **options: Any) -> tuple[Manifest, MemoryStore]:
    """An export, and an empty store into which it was loaded, with all rows taken."""
    options["partition"] = partition_of(options.get("partition", "symbol"))
    loaded = MemoryStore()
    with tempfile.TemporaryDirectory() as folder:
        manifest = export(Held(store), Path(folder) / "out", ExportOptions(**options), threads=1)
        loaded.put_instruments(manifest.instruments)
        report = bulk.load(
            [Path(folder) / "out"],
            loaded,
            bulk.LoadOptions(threads=1),
            instruments=manifest.instruments,
            quarantine_dir=Path(folder) / "quarantine",
        )
        problems = [file.problem for file in report.files if file.problem] + [
            rejection for file in report.files for rejection in file.rejections
        ]
        assert (report.totals.inserted, problems) == (manifest.rows, [])
    return manifest, loaded


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format(format_: str) -> None:
    store = filled()
    manifest, loaded = there_and_back(store, format=format_)
    assert content(loaded) == content(store)
    again = export_content(loaded)
    assert again == manifest.content


def export_content(store: Any) -> dict[str, dict[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        return export(Held(store), folder, ExportOptions()).content


@pytest.mark.parametrize("partition", ["none", "month", "symbol,day"])
def test_every_partition(partition: str) -> None:
    store = filled()
    assert content(there_and_back(store, format="csv", partition=partition)[1]) == content(store)


def test_a_file_a_day_of_rows_far_apart_asks_for_the_days_that_have_some() -> None:
    store = MemoryStore()
    store.write(Kind.TRADES, rows_of(Kind.TRADES, [{**TRADES[0], "timestamp": 1}, TRADES[0]]))
    asked: list[Any] = []

    class Watched(Held):
        def rows(self, request: Any) -> Any:
            asked.append(request)
            return super().rows(request)

    with tempfile.TemporaryDirectory() as folder:
        manifest = export(Watched(store), Path(folder) / "out", ExportOptions(partition=partition_of("day")))
    assert len(manifest.files) == 2
    assert len(asked) < 20


def test_words_that_look_missing_beside_a_number_that_is_looked_at_twice() -> None:
    store = MemoryStore()
    large = {**TRADES[0], "price": 9007199254740992.0}
    words = [{**TRADES[0], "exchange": "NA", "side": "null", "conditions": "-", "id": ""}]
    store.write(Kind.TRADES, rows_of(Kind.TRADES, [large, *words]))
    for format_ in ("jsonl", "csv"):
        assert content(there_and_back(store, format=format_)[1]) == content(store)


floats = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1e-12, 5e-324, 1.7976931348623157e308, 0.1 + 0.2, 0.12345678, 123456789.12345678]),
)
amounts = floats.map(abs)
times = st.one_of(st.integers(T0, T0 + 10**12), st.integers(-(2**62), 2**62), st.sampled_from([T0, 0, 1, 10**9]))
words = st.sampled_from(
    ["buy", "NA", "", "-", "null", "nan", "a,b", 'say "x"', "tab\there", " x ", "\u00e4\u20ac", "1", "true", "'"]
)
symbols = st.sampled_from(["AAPL", "aapl", "BTC/USD", "^GSPC", "CON", "NA", "null", "1", "-", "D", "\u00c4", "ES=F"])
sources = st.sampled_from(["q", "file:x.csv", "NA", "a b", "\u00e9"])
bars_of_minutes = st.fixed_dictionaries(
    {
        "symbol": symbols,
        "timestamp": st.integers(0, 10**6).map(lambda n: T0 + n * MINUTE_NS),
        "prices": st.lists(floats, min_size=4, max_size=4).map(sorted),
        "volume": amounts,
        "vwap": st.none() | floats,
        "trades": st.none() | st.integers(0, 2**53),
        "adj_close": st.none() | floats,
        "source": sources,
    }
)
identity = {"exchange": st.none() | words, "conditions": st.none() | words, "id": st.none() | words, "source": sources}
trades = st.fixed_dictionaries(
    {"symbol": symbols, "timestamp": times, "price": floats, "size": amounts, "side": st.none() | words, **identity}
)
quotes = st.fixed_dictionaries(
    {
        "symbol": symbols, "timestamp": times, "bid": floats, "bid_size": amounts, "ask": floats, "ask_size": amounts,
        **identity,
    }
)  # fmt: skip


def bar(row: dict[str, Any]) -> dict[str, Any]:
    low, first, last, high = row.pop("prices")
    return row | {"open": first, "high": high, "low": low, "close": last}


@given(
    bars=st.lists(bars_of_minutes.map(bar), max_size=12, unique_by=lambda row: (row["symbol"], row["timestamp"])),
    trades=st.lists(trades, max_size=12),
    quotes=st.lists(quotes, max_size=12),
    format_=st.sampled_from(["parquet", "arrow", "csv", "tsv.gz", "jsonl", "sqlite", "duckdb"]),
    partition=st.sampled_from(["symbol", "none", "symbol,month", "day"]),
)
@settings(max_examples=30)
def test_any_values(
    bars: list[dict[str, Any]],
    trades: list[dict[str, Any]],
    quotes: list[dict[str, Any]],
    format_: str,
    partition: str,
) -> None:
    store = MemoryStore()
    for kind, rows in ((Kind.BARS, bars), (Kind.TRADES, [*TRADES, *trades]), (Kind.QUOTES, [*QUOTES, *quotes])):
        if rows:
            store.write(kind, rows_of(kind, rows), interval=Interval.M1 if kind is Kind.BARS else None)
    manifest, loaded = there_and_back(store, format=format_, partition=partition)
    assert content(loaded) == content(store)
    assert manifest.content == export_content(loaded)


def test_the_same_file_again_changes_nothing(tmp_path: Path) -> None:
    store = filled()
    export(Held(store), tmp_path / "out", ExportOptions(format="csv"))
    report = bulk.load(
        [tmp_path / "out"], store, bulk.LoadOptions(), instruments=store.instruments(), quarantine_dir=tmp_path / "q"
    )
    assert report.totals.unchanged == report.totals.read > 0
