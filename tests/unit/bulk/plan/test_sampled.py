"""A file of which no row at the beginning is good is refused by the plan, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tapehouse import bulk
from tapehouse.errors import UnrecognisedFile
from tapehouse.model import Instrument
from tapehouse.store.memory import MemoryStore

HEAD = "Date,Open,High,Low,Close,Volume\n"
DAYS = [f"2024-01-{day:02}" for day in range(1, 29)]


def csv(tail: str, *, name: str = "KO.csv", days: list[str] = DAYS) -> dict[str, str]:
    return {name: HEAD + "".join(f"{day},{tail}\n" for day in days)}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            csv("€1,€3,€0.5,€2,10"),
            "none of the first 28 rows can be loaded: open is not a number, for example line 2",
        ),
        (csv("1,0.9,0.5,2,10"), "high is below open, for example line 2: '2024-01-01,1,0.9,0.5,2,10'"),
        (csv("1,3,0.5,2,N/A"), "volume is missing, .*; --map volume=0 when the file has none"),
        (
            {"KO.jsonl": '{"date": "2024-01-02", "open": 1, "high": 3, "low": 0.5, "close": 2, "volume": -1}\n' * 2},
            "volume is negative",
        ),
    ],
)
def test_what_cannot_be_loaded_is_refused_as_a_whole(files: dict[str, str], says: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    options, store = bulk.LoadOptions(interval="1d"), MemoryStore()
    with pytest.raises(UnrecognisedFile, match=says):
        bulk.load([tmp_path], store, options, quarantine_dir=tmp_path / "q")
    assert not (tmp_path / "q").exists()
    taken = bulk.LoadOptions(interval="1d", max_bad_share=1)
    assert bulk.load([tmp_path], store, taken, quarantine_dir=tmp_path / "q").totals.inserted == 0


def test_so_is_a_file_whose_columns_have_types(tmp_path: Path) -> None:
    columns = {"symbol": ["KO"] * 9, "timestamp": pa.array(range(9), pa.timestamp("s", "UTC")), "price": [None] * 9}
    pq.write_table(pa.table(columns | {"size": [1.0] * 9}).cast(_TRADES), tmp_path / "trades.parquet")
    (file,) = bulk.plan([tmp_path], bulk.LoadOptions())
    assert file.problem is not None
    assert "none of the first 9 rows can be loaded: price is missing" in file.problem.message


_TRADES = pa.schema(
    [("symbol", pa.string()), ("timestamp", pa.timestamp("s", "UTC")), ("price", pa.float64()), ("size", pa.float64())]
)


def test_one_good_row_is_enough_and_it_is_looked_for_in_as_many_as_may_be_bad(tmp_path: Path) -> None:
    days = [f"{year}-{month:02}-{day:02}" for year in (2022, 2023) for month in range(1, 13) for day in range(1, 29)]
    bad, good = csv("1,0.9,0.5,2,10", days=days), "2024-01-01,1,3,0.5,2,10\n"
    (tmp_path / "KO.csv").write_text(bad["KO.csv"] + good)
    (file,) = bulk.plan([tmp_path], bulk.LoadOptions())
    assert file.problem is None
    (file,) = bulk.plan([tmp_path], bulk.LoadOptions(max_bad_rows=500))
    assert file.problem is not None


def test_midnights_of_instruments_that_a_plan_does_not_know_are_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / "KO.csv").write_text(HEAD + "".join(f"{day}T05:00:00Z,1,3,0.5,2,10\n" for day in DAYS))
    store = MemoryStore()
    york = Instrument(pattern="*", timezone="America/New_York")
    store.put_instruments([york])
    report = bulk.load([tmp_path], store, quarantine_dir=tmp_path / "q", instruments=[york])
    assert report.totals.inserted == len(DAYS)


def test_a_wrong_one_among_many_alike_is_refused_too(tmp_path: Path) -> None:
    days = [f"{year}-{month:02}-{day:02}" for year in (2022, 2023) for month in range(1, 13) for day in range(1, 29)]
    for number in range(5):
        text = csv("1,0.9,0.5,2,10" if number == 3 else "1,3,0.5,2,10", days=days)["KO.csv"]
        (tmp_path / f"S{number}.csv").write_text(text)
    files = bulk.plan([tmp_path], bulk.LoadOptions())
    assert [file.name for file in files if file.problem] == ["S3.csv"]
