"""Descriptions of layouts: what may be in them, and what they decide."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tapehouse import bulk
from tapehouse.bulk.recognise.known import built_in, own_descriptions, read_descriptions
from tapehouse.errors import InvalidSetting
from tapehouse.model import Interval

GUIDE = Path(__file__).parents[4] / "docs" / "guides" / "load.md"
HEADER = {"name": "X", "kind": "bars", "header": ["d", "open", "high", "low", "close", "volume"]}


def test_the_table_that_comes_along_is_sound() -> None:
    assert len(built_in()) > 30


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"colour": "red"}, "unknown field `colour`"),
        ({"kind": "candles"}, "Invalid enum value 'candles'"),
        ({"header": []}, "it needs either header or shape"),
        ({"shape": ["date"]}, "it needs either header or shape"),
        ({"header": [], "shape": ["dates"]}, "Invalid enum value 'dates'"),
        ({"columns": {"bid": "1"}}, "bars have no field 'bid'"),
        ({"values": {"colour": {}}}, "bars have no field 'colour'"),
        ({"file": "("}, "is no regular expression"),
        ({"file": "(?P<ticker>.*)"}, "file has a group 'ticker'"),
        ({"file_required": True}, "file_required needs file"),
        ({"timezone": "Mars/Olympus"}, "unknown time zone 'Mars/Olympus'"),
        ({"midnight": "Mars/Olympus"}, "unknown time zone 'Mars/Olympus'"),
        ({"carried": ["symbol"]}, "carried names 'symbol', which is no number of bars"),
        ({"decimals": 30}, "decimals is between 0 and 18"),
        ({"interval": "7m"}, "Invalid enum value '7m'"),
    ],
)
def test_a_description_that_makes_no_sense_names_itself(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidSetting, match=re.escape(says)) as caught:
        read_descriptions([{**HEADER}, {**HEADER, **changes}], "mine.toml")
    assert caught.value.message.startswith("mine.toml: [[formats]] number 2 (X): ")


def test_ones_own_are_read_from_the_settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert own_descriptions() == ()
    Path("tapehouse.toml").write_text("formats = 5")
    with pytest.raises(InvalidSetting, match=r"headed \[\[formats\]\]"):
        own_descriptions()
    shown, *_ = [
        block for block in re.findall(r"```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL) if "formats" in block
    ]
    Path("tapehouse.toml").write_text("port = 1\n" + shown)
    (own,) = own_descriptions()
    assert own.name == "Broker X, end of day"
    assert own == read_descriptions(tomllib.loads(shown)["formats"], "")[0]
    Path("x_SAP_eod.csv").write_text("".join(f"{day:02}/01/2024,15012,15100,14950,15080,7\n" for day in range(2, 8)))
    (file,) = bulk.plan(["x_SAP_eod.csv"], bulk.LoadOptions(formats=(own,)))
    assert (file.recognised, file.symbol, file.decimals) == ("Broker X, end of day", "SAP", 2)
    assert bulk.plan(["x_SAP_eod.csv"], bulk.LoadOptions())[0].recognised is None


def test_ones_own_go_before_those_that_are_built_in_and_the_options_before_both(tmp_path: Path) -> None:
    rows = "Date,Open,High,Low,Close,Adj Close,Volume\n" + "".join(
        f"2024-01-0{n},1,3,0.5,2,2,10\n" for n in range(2, 8)
    )
    (tmp_path / "AAPL.csv").write_text(rows)
    entry = {
        "name": "Mine",
        "kind": "bars",
        "header": ["Date", "Open", "High", "Low", "Close"],
        "others": True,
        "columns": {"close": "Adj Close"},
        "timezone": "Asia/Tokyo",
    }
    own = read_descriptions([entry], "mine.toml")
    (file,) = bulk.plan([tmp_path], bulk.LoadOptions(formats=own))
    assert (file.recognised, file.columns["close"]) == ("Mine", "Adj Close")
    assert file.times is not None
    assert file.times.zone == "Asia/Tokyo"
    (file,) = bulk.plan([tmp_path], bulk.LoadOptions(formats=own, timezone="UTC", mapping={"close": "Close"}))
    assert file.columns["close"] == "Close"
    assert file.times is not None
    assert file.times.zone == "UTC"
    assert bulk.plan([tmp_path], bulk.LoadOptions())[0].recognised == "Yahoo"


def test_a_name_that_says_another_interval_than_the_rows_is_refused(tmp_path: Path) -> None:
    rows = "".join(f"{1704205800 + 300 * n},1,3,0.5,2,10,7\n" for n in range(6))
    (tmp_path / "XBTUSD_1.csv").write_text(rows)
    (tmp_path / "XBTUSD_5.csv").write_text(rows)
    wrong, right = bulk.plan([tmp_path], bulk.LoadOptions())
    assert wrong.problem is not None
    assert "the name says 1m" in wrong.problem.message
    assert (right.interval, right.recognised) == (Interval.M5, "Kraken OHLCVT")


def test_a_file_of_several_columns_for_a_field_is_read_from_the_first_that_holds_something(tmp_path: Path) -> None:
    head = "<DATE>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"
    for name, volume in (("EURUSD", 0), ("SAP", 7)):
        rows = "".join(f"2024.01.0{n}\t1\t3\t0.5\t2\t10\t{volume}\t1\n" for n in range(2, 8))
        (tmp_path / f"{name}_Daily.csv").write_text(head + rows)
    files = bulk.plan([tmp_path], bulk.LoadOptions())
    assert [(file.symbol, file.columns["volume"]) for file in files] == [("EURUSD", "<TICKVOL>"), ("SAP", "<VOL>")]


def test_the_symbol_of_the_header_goes_after_what_is_said(tmp_path: Path) -> None:
    rows = "".join(f"2024-01-0{day},1,2,.5,1.5,9\n" for day in (2, 3, 4))
    header = "Price,Close,High,Low,Open,Volume\nTicker,{},MSFT,MSFT,MSFT,MSFT\nDate,,,,,\n"
    (tmp_path / "KO.csv").write_text(header.format("MSFT") + rows)
    (tmp_path / "PEP.csv").write_text(header.format("AAPL") + rows)
    found = bulk.plan([tmp_path], bulk.LoadOptions())
    assert [(file.symbol, file.symbol_from) for file in found] == [
        ("MSFT", "the second line of the header"),
        ("PEP", "the file's name"),
    ]
    (said,) = bulk.plan([tmp_path / "KO.csv"], bulk.LoadOptions(symbol="X"))
    assert said.symbol == "X"
