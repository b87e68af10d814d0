"""Rows as the frame that somebody asked for.

Polars and Arrow: the columns symbol, timestamp (nanoseconds, UTC), then the values. pandas: a UTC index named
`timestamp` for one symbol, or (symbol, timestamp) for several; `frame.attrs` says which commit the rows are of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tapehouse.client.arrow import Rows
from tapehouse.errors import InvalidRequest, MissingExtra

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

FrameName = Literal["polars", "pandas", "arrow"]

_CAPITALS = {
    "open": "Open",
    "high": "High",
    "low": "Low",
    "close": "Close",
    "volume": "Volume",
    "adj_close": "Adj Close",
    "vwap": "VWAP",
    "trades": "Trades",
    "count": "Count",
    "return": "Return",
    "volatility": "Volatility",
}


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A frame, and what is known of it beside its rows.

    `made_from` says for each symbol whose bars were resampled what they were made from; `next_page`, given as `page`
    with the same question, goes on behind the last row, in the same commit, and is None behind the last page.
    """

    frame: Any
    commit: int
    made_from: dict[str, tuple[str, ...]]
    next_page: str | None


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What rows are turned into."""

    frame: str = "polars"
    one_symbol: bool = False
    capitalize: bool = False

    def __post_init__(self) -> None:
        if self.frame not in ("polars", "pandas", "arrow"):
            raise InvalidRequest(f"frame is 'polars', 'pandas' or 'arrow', not {self.frame!r}", frame=self.frame)

    def of(self, rows: Rows) -> Any:
        """The rows as a `polars.DataFrame`, `pandas.DataFrame` or `pyarrow.Table`."""
        table = rows.table
        if self.capitalize:
            table = table.rename_columns([_CAPITALS.get(name, name) for name in table.column_names])
        if self.frame == "arrow":
            return table
        return _polars(table) if self.frame == "polars" else _pandas(table, rows, self.one_symbol)

    def page(self, rows: Rows) -> Page:
        """The same with what is known of the rows."""
        return Page(frame=self.of(rows), commit=rows.commit, made_from=rows.made_from, next_page=rows.next_page)


def shape_of(symbols: object, frame: str, capitalize: bool = False) -> Shape:
    """The shape for a question: one symbol given as a string needs no symbol in the index."""
    return Shape(frame=frame, one_symbol=isinstance(symbols, str), capitalize=capitalize)


def _polars(table: Any) -> pl.DataFrame:
    import polars as pl

    frame = pl.DataFrame(pl.from_arrow(table))
    # Plain strings join, filter and compare with anything; categories only with their like.
    return frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))


def _pandas(table: Any, rows: Rows, one_symbol: bool) -> pd.DataFrame:
    try:
        import pandas as pd
    except ImportError as exc:
        raise MissingExtra("pandas is not installed: pip install 'tapehouse[pandas]', or frame='polars'") from exc

    frame: pd.DataFrame = table.replace_schema_metadata(None).to_pandas()
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.CategoricalDtype) and name != "symbol":
            frame[name] = frame[name].astype(frame[name].cat.categories.dtype)
    frame["timestamp"] = frame["timestamp"].dt.tz_convert("UTC").dt.as_unit("ns")
    frame = _indexed(frame, one_symbol)
    frame.attrs = {"commit": rows.commit, "made_from": rows.made_from}
    return frame


def _indexed(frame: pd.DataFrame, one_symbol: bool) -> pd.DataFrame:

    if one_symbol:
        return frame.drop(columns="symbol").set_index("timestamp")
    frame["symbol"] = frame["symbol"].astype("category")
    indexed = frame.set_index(["symbol", "timestamp"])
    # The level becomes text only here, where each symbol is there once.
    index: Any = indexed.index
    indexed.index = index.set_levels(index.levels[0].astype(str), level=0)
    return indexed
