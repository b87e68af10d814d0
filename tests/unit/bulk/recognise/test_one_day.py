"""Files of one day, and names that browsers and vendors give to downloads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tapehouse import bulk
from tapehouse.model import Interval

POLYGON = "ticker,volume,open,close,high,low,window_start,transactions\n"
MIDNIGHT_NS = 1704171600000000000
NASDAQ = "Date,Close/Last,Volume,Open,High,Low\n" + "".join(
    f"01/{day:02}/2024,$100.5,1200,$100,$101,$99\n" for day in range(31, 10, -1)
)


def test_a_day_of_all_tickers_is_of_daily_bars(tmp_path: Path) -> None:
    rows = "".join(f"{name},1200,100,100.25,100.5,99.5,{MIDNIGHT_NS},120\n" for name in ("AAPL", "IBM", "MSFT"))
    (tmp_path / "2024-01-02.csv").write_text(POLYGON + rows)
    (file,) = bulk.plan([tmp_path], bulk.LoadOptions())
    assert file.problem is None
    assert (file.interval, file.interval_from) == (Interval.D1, "one row a symbol, all of midnight")
    assert file.times is not None
    assert file.times.dates


def test_a_minute_of_all_tickers_is_not(tmp_path: Path) -> None:
    rows = "".join(f"{name},12,100,100,100,99,{MIDNIGHT_NS + 34_200 * 10**9},2\n" for name in ("AAPL", "IBM", "MSFT"))
    (tmp_path / "2024-01-02.csv").write_text(POLYGON + rows)
    (file,) = bulk.plan([tmp_path], bulk.LoadOptions())
    assert file.problem is not None
    assert "--interval" in file.problem.message


@pytest.mark.parametrize(
    "name", ["HistoricalData_1704912345678.csv", "HistoricalData_1704.csv", "HistoricalData (1).csv", "prices (2).csv"]
)
def test_the_name_of_a_download_is_no_symbol(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(NASDAQ)
    (file,) = bulk.plan([tmp_path], bulk.LoadOptions())
    assert file.problem is not None
    assert "no column is the symbol, and the file's name says none: say it with --symbol" in file.problem.message
    assert bulk.plan([tmp_path], bulk.LoadOptions(symbol="AAPL"))[0].problem is None
