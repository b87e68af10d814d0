"""Names of files: safe on every file system, distinct, and understood by the loader."""

from __future__ import annotations

import re
from datetime import date
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.bulk.recognise.steps import BY_WORD, named_interval
from tapehouse.errors import InvalidSymbol
from tapehouse.export.base import Partition
from tapehouse.export.names import distinct, path_of, safe
from tapehouse.model import Interval, Kind, check_symbol

RESERVED = {"con", "prn", "aux", "nul", *(f"{name}{n}" for name in ("com", "lpt") for n in range(10))}


def is_symbol(text: str) -> bool:
    try:
        check_symbol(text)
    except InvalidSymbol:
        return False
    return True


words = st.sampled_from([*BY_WORD, "A", "BTC", "con", "lpt1", "\u00e4", "x" * 60])
symbols = st.one_of(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=128),
    st.lists(words, min_size=1, max_size=3).flatmap(
        lambda parts: st.sampled_from(" -_./:=").map(lambda s: s.join(parts))
    ),
).filter(is_symbol)


@given(symbol=symbols)
def test_any_symbol_is_safe_and_can_be_read_back(symbol: str) -> None:
    name = safe(symbol)
    assert re.fullmatch(r"[A-Za-z0-9._^+@%~-]{1,120}", name)
    assert name.split(".")[0].lower() not in RESERVED
    assert name[0] not in "-._"
    assert name[-1] != "."
    assert unquote(name) == symbol or "~" in name


@given(symbol=symbols, interval=st.sampled_from(Interval), first=st.none() | st.dates())
def test_the_loader_reads_the_interval_from_the_name(symbol: str, interval: Interval, first: date | None) -> None:
    path = path_of(Kind.BARS, interval, safe(symbol), first, Partition.DAY, "csv.gz")
    assert named_interval(path.rsplit("/", 1)[1].removesuffix(".csv.gz")) is interval


@given(found=st.sets(symbols, max_size=8))
def test_no_two_symbols_share_a_name_even_without_case(found: set[str]) -> None:
    names = {symbol: safe(symbol) for symbol in found} | distinct(found)
    assert len({name.lower() for name in names.values()}) == len(found)


def test_names_that_differ_only_by_case() -> None:
    told_apart = distinct(["AAPL", "aapl", "MSFT"])
    assert list(told_apart) == ["aapl"]
    assert re.fullmatch(r"aapl~[0-9a-f]{8}", told_apart["aapl"])


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("BTC/USD", "BTC%2FUSD"),
        ("^GSPC", "^GSPC"),
        ("CON", "%43ON"),
        ("con.x", "%63on.x"),
        ("ES=F", "ES%3DF"),
        ("BRK.B", "BRK.B"),
        ("BRK-D", "BRK%2DD"),
        ("X.", "X%2E"),
        ("\u00c4", "%C3%84"),
    ],
)
def test_examples(symbol: str, name: str) -> None:
    assert safe(symbol) == name


@pytest.mark.parametrize(
    ("symbol", "first", "period", "path"),
    [
        (None, None, None, "bars_1m.csv"),
        (None, date(2024, 1, 1), Partition.MONTH, "bars_1m/bars_1m_2024-01.csv"),
        ("A", None, None, "bars_1m/A_1m.csv"),
        ("A", date(2024, 1, 1), Partition.YEAR, "bars_1m/A/A_1m_2024.csv"),
        ("A", date(2024, 1, 2), Partition.DAY, "bars_1m/A/A_1m_2024-01-02.csv"),
    ],
)
def test_paths(symbol: str | None, first: date | None, period: Partition | None, path: str) -> None:
    assert path_of(Kind.BARS, Interval.M1, symbol, first, period, "csv") == path


def test_trades_have_their_kind_in_the_name() -> None:
    assert path_of(Kind.TRADES, None, "A", None, None, "parquet") == "trades/A_trades.parquet"
