"""The benchmarks' data is what it says, everybody is asked the same question, and the page says what was found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from benchmarks import data, measure, ours, peers, report
from benchmarks.bench import Bench
from benchmarks.data import Files, Scale
from benchmarks.measure import Figure, Result
from benchmarks.suites.reads import check_answers

from tapehouse.store.duckdb.store import DuckDBStore

SMALL = Scale(symbols=3, days=4)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(SMALL, tmp_path_factory.mktemp("data"))


def test_stocks_are_plausible_bars_in_cents(files: Files) -> None:
    table = pq.read_table(files.stocks())
    prices = np.array([table[name].to_numpy() for name in ("open", "high", "low", "close")])
    assert table.num_rows == SMALL.rows
    assert (prices.max(axis=0) == prices[1]).all()
    assert (prices.min(axis=0) == prices[2]).all()
    assert (np.round(prices, 2) == prices).all()
    assert (table["volume"].to_numpy() > 0).all()
    assert (table["volume"].to_numpy() % 1 == 0).all()


def test_sessions_follow_new_york_through_daylight_saving() -> None:
    opens = [data.session_start(day) // 60_000_000_000 % 1_440 for day in data.session_days(60)]
    assert set(opens) == {14 * 60 + 30, 13 * 60 + 30}


def test_the_data_is_the_same_every_time(tmp_path: Path, files: Files) -> None:
    again = Files(SMALL, tmp_path)
    for name in ("stocks", "crypto", "adjusted", "trades"):
        assert pq.read_table(getattr(again, name)()).equals(pq.read_table(getattr(files, name)())), name


def test_all_layouts_hold_the_same_rows(files: Files) -> None:
    stocks = pq.read_table(files.stocks())
    by_day = pq.read_table(files.stocks_by_day())
    by_day = by_day.take(np.lexsort((by_day["timestamp"].to_numpy(), by_day["symbol"].to_numpy().astype(str))))
    text = pa_csv.read_csv(files.stocks_csv())
    assert pq.read_metadata(files.stocks_by_day()).num_row_groups == SMALL.days
    for name in ("timestamp", "open", "close", "volume"):
        assert by_day[name].equals(stocks[name])
        assert text[name].cast(stocks[name].type).equals(stocks[name])


def test_peers_and_the_store_give_the_same_answers(files: Files, tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path / "store")
    ours.write_all(store, files.stocks())
    store.compact(everything=True)
    store.close()
    readers = {
        ours.NAME: ours.Reader(tmp_path / "store"),
        "DuckDB": peers.RawDuckDB(files),
        "SQLite": peers.Sqlite(files),
    }
    bench = Bench(symbols=SMALL.symbols, days=SMALL.days, data=str(files.folder.parent))
    check_answers(readers, bench.one_day(1, 5) + bench.all_time(2, 2))
    for reader in readers.values():
        reader.close()


def test_a_wrong_answer_stops_the_benchmark(files: Files) -> None:
    class Wrong:
        def read(self, *_: object) -> pa.Table:
            return pa.table({"close": [1.0]})

    right = peers.RawDuckDB(files)
    bench = Bench(symbols=SMALL.symbols, days=SMALL.days)
    with pytest.raises(AssertionError, match="wrong answers"):
        check_answers({ours.NAME: right, "wrong": Wrong()}, bench.one_day(1, 1))
    right.close()


def test_percentiles_are_samples() -> None:
    samples = [float(n) for n in range(1, 101)]
    assert measure.percentile(samples, 0.5) == 50
    assert measure.percentile(samples, 0.95) == 95
    assert measure.percentile([3.0], 0.95) == 3.0


def test_subjects_take_turns() -> None:
    order: list[str] = []
    samples = measure.alternate({name: lambda name=name: order.append(name) for name in "AB"}, 2, warm_up=1)  # type: ignore[misc]
    assert "".join(order) == "ABBAAB"
    assert {name: len(taken) for name, taken in samples.items()} == {"A": 2, "B": 2}


def test_a_target_is_met_when_both_figure_and_ratio_reach_it() -> None:
    def met(ours: float, theirs: float, better: str) -> bool | None:
        return Figure(
            name="x",
            unit="ms",
            ours=ours,
            better=better,
            peers={"p": theirs},
            target=10,
            ratio_to="p",
            ratio_target=1.5,
        ).met

    assert met(10, 7, "lower") is True
    assert met(10, 6, "lower") is False
    assert met(11, 20, "lower") is False
    assert met(30, 20, "higher") is True
    assert met(30, 21, "higher") is False


def test_the_page_names_what_is_not_met() -> None:
    figures = [
        Figure(name="good", unit="ms", ours=1.0, better="lower", peers={"DuckDB": 4.0}, target=2.0, ratio_to="DuckDB"),
        Figure(name="bad", unit="ms", ours=3.0, better="lower", target=2.0),
    ]
    described = {"cpu": "a", "cores": "2", "memory": "1 GiB", "python": "3.11"}
    result = Result(benchmark="reads", about="About.", scale={}, machine=described, figures=figures)
    page = report.page([result])
    assert "Not met: bad." in page
    assert "| good | 1.00 ms | 4.00 ms | 0.25 of DuckDB | ≤ 2.00 ms | yes |" in page


def test_the_page_says_when_its_figures_are_of_different_code() -> None:
    described = {"cpu": "a", "cores": "2", "memory": "1 GiB", "python": "3.11"}
    figure = Figure(name="good", unit="ms", ours=1.0, better="lower")
    one, other = (
        Result(benchmark="reads", about="About.", scale={}, machine=described, source=source, figures=[figure])
        for source in ("abc", "def")
    )
    assert "all of one source tree, `abc`" in report.page([one, one])
    mixed = report.page([one, other])
    assert "not all of one source tree" in mixed
    assert "Of the source tree `def`." in mixed
