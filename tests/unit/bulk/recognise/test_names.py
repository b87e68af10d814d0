"""Which columns are which."""

from __future__ import annotations

import pytest

from tapehouse.bulk.recognise.names import SPELLINGS, match, plain
from tapehouse.bulk.recognise.symbols import symbol_of
from tapehouse.errors import UnrecognisedFile
from tapehouse.model import SCHEMAS, Kind


def test_every_field_of_the_model_has_a_spelling_of_its_own() -> None:
    fields = {name for schema in SCHEMAS.values() for name in schema.names} - {"source", "ordinal"}
    assert fields <= set(SPELLINGS)
    assert all(plain(field) in spellings for field, spellings in SPELLINGS.items())


@pytest.mark.parametrize("name", ["Adj Close", "adj_close", "<ADJ CLOSE>", "adjClose", " Adj. Close "])
def test_case_spaces_and_signs_do_not_matter(name: str) -> None:
    found = match(["date", "open", "high", "low", "close", "volume", name], {})
    assert found.places["adj_close"] == 6


@pytest.mark.parametrize("name", ["Eröffnung", "ERÖFFNUNG", "Ero\u0308ffnung", "Eroeffnung"])
def test_umlauts_are_what_stands_for_them(name: str) -> None:
    assert match(["Datum", name, "Hoch", "Tief", "Schluss", "Volumen"], {}).places["open"] == 1


def test_pieces_and_not_the_turnover_beside_them_are_the_volume() -> None:
    names = ["Datum", "Erster", "Hoch", "Tief", "Schlusskurs", "Volumen", "Stücke"]
    assert match(names, {}).places["volume"] == 6


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ("timestamp open high low close volume", Kind.BARS),
        ("t o h l c v", Kind.BARS),
        ("time price size", Kind.TRADES),
        ("ts px qty side tradeId", Kind.TRADES),
        ("time price volume", Kind.TRADES),
        ("time bid bidSize ask askSize", Kind.QUOTES),
        ("time bp bs ap as", Kind.QUOTES),
    ],
)
def test_kinds(names: str, kind: Kind) -> None:
    assert match(names.split(), {}).kind is kind


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        ("timestamp date open high low close volume", {"timestamp"}),
        ("date time open high low close volume", {"date", "time"}),
        ("date open high low close volume", {"date"}),
        ("time open high low close volume", {"time"}),
    ],
)
def test_one_time_is_taken(names: str, taken: set[str]) -> None:
    assert {"timestamp", "date", "time"} & match(names.split(), {}).places.keys() == taken


def test_the_users_word_goes_first() -> None:
    names = ["Zeit", "erster", "high", "low", "close", "volume", "open"]
    found = match(names, {"timestamp": "Zeit", "open": "erster"})
    assert (found.places["timestamp"], found.places["open"]) == (0, 1)


def test_one_column_cannot_be_two_fields() -> None:
    with pytest.raises(UnrecognisedFile, match="cannot be both"):
        match(["date", "open", "high", "low", "close", "volume"], {"vwap": "close", "close": "close"})


@pytest.mark.parametrize(
    ("path", "symbol"),
    [
        ("x/AAPL.csv", "AAPL"),
        ("AAPL_1m.csv.gz", "AAPL"),
        ("BTC-USDT_1h_2024.parquet", "BTC-USDT"),
        ("BTCUSDT-trades-2024-01-02.zip", "BTCUSDT"),
        ("brk.b.csv", "brk.b"),
        ("^GSPC.csv", "^GSPC"),
        ("D.csv", "D"),
    ],
)
def test_symbols_by_name(path: str, symbol: str) -> None:
    assert symbol_of(path, None, None, None).symbol == symbol


@pytest.mark.parametrize(
    ("path", "symbol"),
    [("x/ADJ.csv", "ADJ"), ("ALL_1d.csv.gz", "ALL"), ("DAY_2024.csv", "DAY"), ("US.txt", "US"), ("EOD.csv", "EOD")],
)
def test_a_word_in_capitals_is_a_symbol_when_nothing_else_is_and_that_is_said(path: str, symbol: str) -> None:
    found = symbol_of(path, None, None, None)
    assert found.symbol == symbol
    assert "also a word" in found.why
    assert symbol_of("KO.zip", path, None, None) == ("KO", "the file's name")
    assert symbol_of("prices.zip", path, None, None).symbol == symbol


@pytest.mark.parametrize(("path", "symbol"), [("all.csv", "all"), ("data_2024.csv", "data"), ("KO_1m.csv", "KO")])
def test_every_name_is_a_symbol_when_that_is_said(path: str, symbol: str) -> None:
    assert symbol_of(path, None, None, "name") == (symbol, "the file's name")


@pytest.mark.parametrize(
    "path", ["data.csv", "all.csv", "HISTORY.csv", "M1.csv", "ohlcv_2024.csv", "1m.csv", "Daily.csv", "a b{c}.csv"]
)
def test_names_without_a_symbol(path: str) -> None:
    with pytest.raises(UnrecognisedFile, match="--symbol"):
        symbol_of(path, None, None, None)
