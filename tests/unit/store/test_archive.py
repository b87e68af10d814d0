"""The archive's files: exact to the bit through every reader that docs/guides/parquet.md shows."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.errors import StoreDamaged
from tapehouse.model import DAY_NS, TIMESTAMP, Interval, Kind
from tapehouse.store.archive.columns import LARGEST_SCALE, decimal_scale, fits, to_decimal, to_float
from tapehouse.store.archive.scales import JointScales, scales_of
from tapehouse.store.base import Selection
from tapehouse.store.duckdb import DuckDBStore

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "parquet.md"
CENTS = st.integers(-(10**9), 10**9).map(lambda ticks: ticks / 100)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.one_of(CENTS, FLOATS), min_size=1, max_size=50))
def test_a_decimal_scale_gives_every_value_back(values: list[float]) -> None:
    array = np.array(values)
    scale = decimal_scale(array)
    if scale is not None:
        back = to_float(to_decimal(array, scale)).to_numpy()
        assert back.view("i8").tolist() == array.view("i8").tolist()


@given(st.integers(0, LARGEST_SCALE), st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=50))
def test_decimals_of_any_scale_are_found(scale: int, ticks: list[int]) -> None:
    values = np.array([float(Decimal(t).scaleb(-scale)) for t in ticks])
    if (np.signbit(values) & (values == 0)).any():
        return
    found = decimal_scale(values)
    assert found is not None
    assert found <= scale


def test_no_scale_holds_what_no_decimal_is_nearest_to() -> None:
    assert decimal_scale(np.array([1 / 3])) is None
    assert decimal_scale(np.array([0.01, -0.0])) is None
    assert decimal_scale(np.array([1e300])) is None


DECIMALS = st.tuples(st.integers(0, 10**14), st.integers(0, LARGEST_SCALE)).map(
    lambda number: float(Decimal(number[0]).scaleb(-number[1]))
)


@given(st.lists(st.lists(DECIMALS, min_size=1, max_size=5), min_size=1, max_size=6))
def test_symbols_share_a_file_only_while_every_one_is_exact_in_it(columns: list[list[float]]) -> None:
    field, joint = pa.field("volume", pa.float64()), JointScales()
    taken = [np.array(values) for values in columns if joint.take(scales_of(pa.table({"volume": values}), [field]))]
    digits = joint.digits["volume"]
    assert taken
    assert digits is None or all(fits(values, digits) for values in taken)


def test_prices_of_a_symbol_that_no_scale_holds_together_stay_float64() -> None:
    fields = [pa.field("open", pa.float64()), pa.field("low", pa.float64())]
    scales = scales_of(pa.table({"open": [9_007_199_254_740_991.0], "low": [0.001]}), fields)
    assert {name: scale.digits for name, scale in scales.items()} == {"open": None, "low": None}


def test_values_that_do_not_fit_a_scale_are_never_written() -> None:
    with pytest.raises(ValueError, match="do not fit 8 decimal digits"):
        to_decimal(np.array([4.1e13]), 8)


@given(st.lists(st.one_of(st.none(), CENTS), min_size=1, max_size=30))
def test_nulls_stay_nulls(values: list[float | None]) -> None:
    valid = np.array([v is not None for v in values])
    decimals = to_decimal(np.array([v or 0.0 for v in values]), 2, valid)
    assert to_float(decimals).to_pylist() == values
    assert to_float(decimals.slice(1)).to_pylist() == values[1:]


def bars(symbol: str, close: np.ndarray) -> pa.Table:
    times = 1_262_304_000 * 10**9 + np.arange(len(close)) * DAY_NS
    return pa.table(
        {
            "symbol": [symbol] * len(close),
            "timestamp": pa.array(times).view(TIMESTAMP),
            **{"open": close, "high": close, "low": close, "close": close},
            "volume": np.ones(len(close)),
        }
    )


PRICES = {
    "AAPL": np.round(np.random.default_rng(1).uniform(1, 500, 3_000), 2),
    "EURUSD": np.round(np.random.default_rng(2).uniform(1, 2, 3_000), 5),
    "BTC": np.round(np.random.default_rng(3).uniform(1, 90_000, 3_000), 8),
    "ADJ": np.random.default_rng(4).uniform(1, 500, 3_000),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("home")
    with_closing = DuckDBStore(path / "data")
    for symbol, close in PRICES.items():
        with_closing.write(Kind.BARS, bars(symbol, close), interval=Interval.D1, source="test")
    with_closing.compact(everything=True)
    with_closing.close()
    return path


def bits(values: np.ndarray) -> list[int]:
    return np.ascontiguousarray(values, "f8").view("i8").tolist()


@pytest.mark.parametrize("symbol", PRICES)
def test_the_store_reads_the_bits_that_were_written(folder: Path, symbol: str) -> None:
    store = DuckDBStore(folder / "data")
    table = store.read(Selection(interval=Interval.D1, symbols=(symbol,))).table()
    store.close()
    assert bits(table["close"].to_numpy()) == bits(PRICES[symbol])


@pytest.mark.parametrize("symbol", PRICES)
@pytest.mark.parametrize("block", [0, 1, 2], ids=["duckdb", "polars", "pandas"])
def test_the_ways_of_the_guide_give_the_same_bits(
    folder: Path, symbol: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    snippets = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(snippets) == 3
    names = {"duckdb": duckdb, "pl": pl, "pd": pd, "Path": Path}
    monkeypatch.chdir(folder)
    exec(snippets[block].replace("AAPL", symbol), names)
    found = names["bars"]
    assert bits(found["close"].to_numpy()) == bits(PRICES[symbol])  # type: ignore[attr-defined]
    assert len(found) == 3_000  # type: ignore[arg-type]


def test_prices_are_decimals_where_exact_and_doubles_where_not(folder: Path) -> None:
    types = {}
    for path in (folder / "data" / "archive").rglob("*.parquet"):
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            symbol = file.read_row_group(group, columns=["symbol"])["symbol"][0].as_py()
            types[symbol] = str(file.schema_arrow.field("close").type)
    assert types == {
        "AAPL": "decimal128(18, 2)",
        "EURUSD": "decimal128(18, 5)",
        "BTC": "decimal128(18, 8)",
        "ADJ": "double",
    }


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_damaged_file_is_named_when_the_folder_is_opened(tmp_path: Path, harm: str) -> None:
    store = DuckDBStore(tmp_path)
    store.write(Kind.BARS, bars("A", PRICES["AAPL"]), interval=Interval.D1)
    store.compact(everything=True)
    store.close()
    (path,) = (tmp_path / "archive").rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:-50]) if harm == "cut" else path.unlink()
    with pytest.raises(StoreDamaged, match=re.escape(path.name)):
        DuckDBStore(tmp_path)


def test_a_file_damaged_inside_is_named_when_it_is_read(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    store.write(Kind.BARS, bars("A", PRICES["AAPL"]), interval=Interval.D1)
    store.compact(everything=True)
    (path,) = (tmp_path / "archive").rglob("*.parquet")
    data = bytearray(path.read_bytes())
    data[-300:] = b"\0" * 300
    path.write_bytes(data)
    with pytest.raises(StoreDamaged, match=re.escape(path.name)):
        store.read(Selection(interval=Interval.D1)).table()
    store.close()


def test_a_changed_bit_is_an_error_and_no_other_price(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    store.write(Kind.BARS, bars("A", PRICES["AAPL"]), interval=Interval.D1)
    store.compact(everything=True)
    right = store.read(Selection(interval=Interval.D1)).table()
    (path,) = (tmp_path / "archive").rglob("*.parquet")
    data, noticed = path.read_bytes(), 0
    pages = pq.read_metadata(path).serialized_size
    for place in range(4, len(data) - pages - 8, 97):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            assert store.read(Selection(interval=Interval.D1)).table() == right
        except StoreDamaged:
            noticed += 1
    store.close()
    assert noticed


def test_an_audit_notices_a_changed_bit_in_any_column(tmp_path: Path) -> None:
    """Also in one that no read of ours needs, such as the symbols, which other programs read."""
    store = DuckDBStore(tmp_path)
    store.write(Kind.BARS, bars("A", PRICES["AAPL"]), interval=Interval.D1, batch="b")
    store.compact(everything=True)
    (path,) = (tmp_path / "archive").rglob("*.parquet")
    data, group = path.read_bytes(), pq.read_metadata(path).row_group(0)
    for column in map(group.column, range(group.num_columns)):
        place = (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size - 1
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(StoreDamaged, match=path.name):
            store.written("b", Kind.BARS, Interval.D1).table()
    path.write_bytes(data)
    assert store.written("b", Kind.BARS, Interval.D1).table().num_rows == group.num_rows
    store.close()


def test_a_changed_bit_of_a_footer_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    store.write(Kind.BARS, bars("A", PRICES["AAPL"]), interval=Interval.D1)
    store.compact(everything=True)
    (path,) = (tmp_path / "archive").rglob("*.parquet")
    data = path.read_bytes()
    for place in range(len(data) - pq.read_metadata(path).serialized_size - 8, len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        store.forget_footers()
        with pytest.raises(StoreDamaged, match=path.name):
            store.read(Selection(interval=Interval.D1)).table()
    store.close()


def test_a_footer_is_checked_by_who_opens_the_folder_later_too(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    store.write(Kind.BARS, bars("A", PRICES["AAPL"]), interval=Interval.D1)
    store.compact(everything=True)
    store.close()
    (path,) = (tmp_path / "archive").rglob("*.parquet")
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    store = DuckDBStore(tmp_path)
    with pytest.raises(StoreDamaged, match=f"footer of the archive file .*{path.name}"):
        store.read(Selection(interval=Interval.D1)).table()
    store.close()


def test_floats_that_repeat_are_stored_as_a_dictionary(tmp_path: Path) -> None:
    """Adjusted prices have all their digits, but few values: cents times a factor."""
    adjusted = PRICES["AAPL"].round(0) * (1 / 3)
    store = DuckDBStore(tmp_path)
    store.write(Kind.BARS, bars("A", adjusted), interval=Interval.D1)
    store.compact(everything=True)
    assert bits(store.read(Selection(interval=Interval.D1)).table()["close"].to_numpy()) == bits(adjusted)
    store.close()
    (path,) = (tmp_path / "archive").rglob("*.parquet")
    column = pq.read_metadata(path).row_group(0).column(5)
    assert (column.path_in_schema, "RLE_DICTIONARY" in column.encodings) == ("close", True)
