"""The conventions of frames: columns, index, time zone, unit and capitals."""

from __future__ import annotations

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from tapehouse.client.arrow import Rows
from tapehouse.client.frames import shape_of
from tapehouse.errors import InvalidRequest
from tapehouse.model import NAME, TIMESTAMP

STAMPS = [1_704_205_800_000_000_000, 1_704_205_800_000_000_001, 1_704_205_860_000_000_000]


def rows(symbols: list[str], **more: list[object]) -> Rows:
    table = pa.table(
        {
            "symbol": pa.array(symbols, pa.string()).dictionary_encode().cast(NAME),
            "timestamp": pa.array(STAMPS[: len(symbols)], TIMESTAMP),
            "open": pa.array([1.0] * len(symbols), pa.float64()),
            "adj_close": pa.array([0.5] * len(symbols), pa.float64()),
        }
        | {name: pa.array(values) for name, values in more.items()}
    )
    return Rows(table=table, commit=12, made_from={"B": ("1m", "trades")})


def test_polars() -> None:
    frame = shape_of(["A", "B"], "polars").of(rows(["A", "A", "B"]))
    assert frame.schema == {
        "symbol": pl.String,
        "timestamp": pl.Datetime("ns", "UTC"),
        "open": pl.Float64,
        "adj_close": pl.Float64,
    }
    assert frame["symbol"].to_list() == ["A", "A", "B"]
    assert frame["timestamp"].cast(pl.Int64).to_list() == STAMPS


def test_arrow_is_as_it_came() -> None:
    given = rows(["A", "B"])
    assert shape_of("A", "arrow").of(given) is given.table


def test_pandas_of_one_symbol_is_indexed_by_time() -> None:
    frame = shape_of("A", "pandas").of(rows(["A", "A"]))
    assert isinstance(frame.index, pd.DatetimeIndex)
    assert (frame.index.name, str(frame.index.tz), frame.index.unit) == ("timestamp", "UTC", "ns")
    assert list(frame.index.asi8) == STAMPS[:2]
    assert list(frame.columns) == ["open", "adj_close"]
    assert frame.attrs == {"commit": 12, "made_from": {"B": ("1m", "trades")}}


@pytest.mark.parametrize("symbols", [["A"], ["A", "B"], None])
def test_pandas_of_a_list_is_indexed_by_symbol_and_time(symbols: list[str] | None) -> None:
    frame = shape_of(symbols, "pandas").of(rows(["A", "A", "B"]))
    assert list(frame.index.names) == ["symbol", "timestamp"]
    assert str(frame.index.dtypes["timestamp"]) == "datetime64[ns, UTC]"
    assert frame.index.dtypes["symbol"] == pd.Index(["A"], dtype=str).dtype
    assert list(frame.index.get_level_values("symbol")) == ["A", "A", "B"]
    assert frame.loc["B"].index.name == "timestamp"
    assert len(frame.loc[("A", pd.Timestamp(STAMPS[1], tz="UTC")) :]) == 2


def test_pandas_keeps_the_order_of_rows() -> None:
    frame = shape_of(["B", "A"], "pandas").of(rows(["B", "A", "B"]))
    assert list(frame.index.get_level_values("symbol")) == ["B", "A", "B"]


@pytest.mark.parametrize("symbols", ["A", ["A"]])
def test_pandas_without_rows_has_the_same_columns_and_index(symbols: str | list[str]) -> None:
    full, empty = (shape_of(symbols, "pandas").of(rows(names)) for names in (["A"], []))
    assert list(empty.columns) == list(full.columns)
    assert list(empty.index.names) == list(full.index.names)
    assert list(empty.dtypes) == list(full.dtypes)
    assert str(empty.index.get_level_values("timestamp").dtype) == "datetime64[ns, UTC]"


def test_other_names_are_text_in_pandas() -> None:
    given = rows(["A"])
    given = Rows(table=given.table.append_column("source", given.table["symbol"]), commit=1)
    assert shape_of("A", "pandas").of(given)["source"].iloc[0] == "A"
    assert not isinstance(shape_of("A", "pandas").of(given)["source"].dtype, pd.CategoricalDtype)


@pytest.mark.parametrize("frame", ["polars", "pandas", "arrow"])
def test_capitals(frame: str) -> None:
    found = shape_of("A", frame, capitalize=True).of(rows(["A"], volume=[1.0], vwap=[2.0]))
    names = list(found.column_names if frame == "arrow" else found.columns)
    assert names[-4:] == ["Open", "Adj Close", "Volume", "VWAP"]


def test_another_kind_of_frame_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="'polars', 'pandas' or 'arrow', not 'spark'"):
        shape_of("A", "spark")


def test_a_page_says_what_is_known_of_it() -> None:
    page = shape_of("A", "polars").page(rows(["A"]))
    assert (page.commit, page.made_from, page.next_page) == (12, {"B": ("1m", "trades")}, None)
    assert page.frame.height == 1
