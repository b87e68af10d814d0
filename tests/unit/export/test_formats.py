"""Every format is opened by DuckDB, Polars and pandas, with the bits that were stored."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from tests.unit.export.parts import T0, Held, bars, filled, minutes, read_file, stored, unpacked

from tapehouse.export.base import FORMATS, ExportOptions
from tapehouse.export.formats import DATABASES, STREAMS
from tapehouse.export.formats.columnar import gathered
from tapehouse.export.run import export
from tapehouse.model import SCHEMAS, Interval, Kind
from tapehouse.store.memory import MemoryStore

CLOSES = [0.1 + 0.2, 1e-12, 123456789.12345678, 5e-324, 1.7976931348623157e308, 100.0, 1 / 3, 2.675]
STAMPS = [T0 + n * 60_000_000_000 for n in range(len(CLOSES))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the same bars in every format."""
    folder = tmp_path_factory.mktemp("formats")
    store = MemoryStore()
    store.write(Kind.BARS, bars("A", STAMPS, open=CLOSES, high=CLOSES, low=CLOSES, close=CLOSES), interval=Interval.M1)
    for format_ in FORMATS:
        export(Held(store), folder / format_, ExportOptions(format=format_, partition=()), threads=1)
    return folder


def bits(values: Any) -> list[bytes]:
    return [struct.pack("<d", float(value)) for value in values]


def of_sqlite(read: Callable[[str, sqlite3.Connection], Any]) -> Callable[[Path], Any]:
    def opened(path: Path) -> Any:
        with closing(sqlite3.connect(path)) as connection:
            return read("SELECT * FROM bars_1m", connection)

    return opened


def of_duckdb(path: Path) -> Any:
    with closing(duckdb.connect(path, read_only=True)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.sql("SELECT * FROM bars_1m").to_arrow_table()


def by_sql(form: str) -> Callable[[Path], pa.Table]:
    return lambda path: duckdb.connect().sql(f"SELECT * FROM {form.format(path)}").to_arrow_table()


POLARS: dict[str, Callable[[Path], Any]] = {
    "parquet": pl.read_parquet,
    "arrow": pl.read_ipc,
    "csv": pl.read_csv,
    "tsv": lambda path: pl.read_csv(path, separator="\t"),
    "jsonl": pl.read_ndjson,
    "sqlite": of_sqlite(lambda query, connection: pl.read_database(query, connection)),
    "duckdb": lambda path: pl.DataFrame(pl.from_arrow(of_duckdb(path))),
}
PANDAS: dict[str, Callable[[Path], Any]] = {
    "parquet": pd.read_parquet,
    "arrow": pd.read_feather,
    "csv": lambda path: pd.read_csv(path, float_precision="round_trip"),
    "tsv": lambda path: pd.read_csv(path, sep="\t", float_precision="round_trip"),
    "jsonl": lambda path: pd.read_json(path, lines=True, engine="pyarrow"),
    "sqlite": of_sqlite(pd.read_sql_query),
    "duckdb": lambda path: of_duckdb(path).to_pandas(),
}
DUCKDB: dict[str, Callable[[Path], Any]] = {
    "parquet": by_sql("read_parquet('{}')"),
    "arrow": lambda path: pa.ipc.open_file(path).read_all(),  # DuckDB reads it through pyarrow
    "csv": by_sql("read_csv('{}')"),
    "tsv": by_sql("read_csv('{}')"),
    "jsonl": by_sql("read_json('{}')"),
    "duckdb": of_duckdb,
}


def kind_of(format_: str) -> str:
    return {"feather": "arrow"}.get(format_, format_.partition(".")[0])


def file_of(folder: Path, format_: str, tmp_path: Path) -> Path:
    """The file; of a text that is packed, what is in it."""
    path = folder / format_ / f"bars_1m.{format_}"
    if "." not in format_:
        return path
    plain = tmp_path / path.name.rpartition(".")[0]
    plain.write_bytes(unpacked(path))
    return plain


@pytest.mark.parametrize("format_", FORMATS)
def test_polars_opens_it(folder: Path, tmp_path: Path, format_: str) -> None:
    frame = POLARS[kind_of(format_)](file_of(folder, format_, tmp_path))
    assert bits(frame["close"]) == bits(CLOSES)
    assert frame["symbol"].dtype == pl.String


@pytest.mark.parametrize("format_", FORMATS)
def test_pandas_opens_it(folder: Path, tmp_path: Path, format_: str) -> None:
    frame = PANDAS[kind_of(format_)](file_of(folder, format_, tmp_path))
    assert bits(frame["close"]) == bits(CLOSES)


@pytest.mark.parametrize("format_", [each for each in FORMATS if each != "sqlite"])
def test_duckdb_opens_it(folder: Path, tmp_path: Path, format_: str) -> None:
    table = DUCKDB[kind_of(format_)](file_of(folder, format_, tmp_path))
    assert bits(table["close"].to_pylist()) == bits(CLOSES)


@pytest.mark.parametrize("format_", ["csv.gz", "csv.zst", "jsonl.gz", "jsonl.zst"])
def test_duckdb_opens_packed_text_as_it_is(folder: Path, format_: str) -> None:
    read = "read_csv" if "csv" in format_ else "read_json"
    table = by_sql(f"{read}('{{}}')")(folder / format_ / f"bars_1m.{format_}")
    assert bits(table["close"].to_pylist()) == bits(CLOSES)


@pytest.mark.parametrize("format_", ["parquet", "arrow", "feather", "duckdb"])
def test_times_are_nanoseconds_in_utc(folder: Path, format_: str) -> None:
    path = folder / format_ / f"bars_1m.{format_}"
    assert [row["timestamp"] for row in read_file(path)] == STAMPS
    frame = POLARS[kind_of(format_)](path)
    assert frame.schema["timestamp"] == pl.Datetime("ns", "UTC")


def test_times_of_sqlite_sort_as_text(tmp_path: Path) -> None:
    store = filled()
    export(Held(store), tmp_path, ExportOptions(format="sqlite", partition=(), kinds=(Kind.TRADES,)))
    texts = [row["timestamp"] for row in read_file(tmp_path / "trades.sqlite") if row["symbol"] == "AAPL"]
    assert set(texts) == {"2024-01-02T14:30:00.000000001Z"}
    with closing(sqlite3.connect(tmp_path / "trades.sqlite")) as connection:
        (found,) = connection.execute(
            "SELECT count(*) FROM trades WHERE timestamp > '2024-01-02T14:30:00.5'"
        ).fetchone()
    assert found == 1


@pytest.mark.parametrize("format_", [*STREAMS, *DATABASES])
def test_every_kind_in_every_format(tmp_path: Path, format_: str) -> None:
    store = filled()
    manifest = export(Held(store), tmp_path, ExportOptions(format=format_, partition=()))
    assert {file.path for file in manifest.files} == {
        f"{name}.{format_}" for name in ("bars_1m", "bars_1d", "trades", "quotes")
    }
    for kind, interval, name in ((Kind.TRADES, None, "trades"), (Kind.BARS, Interval.M1, "bars_1m")):
        rows = read_file(tmp_path / f"{name}.{format_}")
        assert list(rows[0]) == SCHEMAS[kind].names
        assert [row["symbol"] for row in rows] == [row["symbol"] for row in stored(store, kind, interval)]


def test_all_that_is_promised_is_there() -> None:
    assert set(FORMATS) == {*STREAMS, *DATABASES}


@pytest.mark.parametrize("sizes", [[], [1], [10], [11], [3, 3, 3, 3], [25], [9, 2, 30, 1]])
def test_rows_are_gathered_in_order(sizes: list[int]) -> None:
    schema = pa.schema([("n", pa.int64())])
    numbers = iter(range(sum(sizes)))
    batches = [pa.record_batch([[next(numbers) for _ in range(size)]], schema=schema) for size in sizes]
    tables = list(gathered(schema, batches, 10))
    assert [table.num_rows for table in tables[:-1]] == [10] * (len(tables) - 1)
    assert [n for table in tables for n in table["n"].to_pylist()] == list(range(sum(sizes)))


def test_row_groups_are_of_one_size_however_rows_arrive(tmp_path: Path) -> None:
    store = MemoryStore()
    for symbol in "ABCD":
        store.write(Kind.BARS, bars(symbol, minutes(50)), interval=Interval.M1)
    export(Held(store), tmp_path, ExportOptions(partition=()))
    assert pl.scan_parquet(tmp_path / "bars_1m.parquet").select(pl.len()).collect().item() == 200
