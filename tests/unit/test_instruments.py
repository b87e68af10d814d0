"""Which instrument a symbol is, and how instruments are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tapehouse.codec import decode_instruments, read_instruments
from tapehouse.errors import InvalidData, UnreadableFile
from tapehouse.model import Instrument, Instruments

KNOWN = Instruments(
    Instrument(pattern=pattern, currency=pattern) for pattern in ("*", "BTC*", "*-USD", "BTC-USD", "^*")
)


@pytest.mark.parametrize(
    ("symbol", "pattern"),
    [
        ("BTC-USD", "BTC-USD"),
        ("BTC-EUR", "BTC*"),
        ("BTC/X-USD", "*-USD"),
        ("ETH-USD", "*-USD"),
        ("^GSPC", "^*"),
        ("AAPL", "*"),
        ("btc-usd", "*"),
    ],
)
def test_the_own_name_counts_before_the_longest_pattern(symbol: str, pattern: str) -> None:
    assert KNOWN.of(symbol).currency == pattern


def test_of_equally_long_patterns_the_first_by_name_counts() -> None:
    for patterns in (["A*", "*A"], ["*A", "A*"]):
        assert (
            Instruments(Instrument(pattern=pattern, currency=pattern) for pattern in patterns).of("AA").currency == "*A"
        )


def test_what_nothing_is_known_of_trades_around_the_clock_in_utc() -> None:
    assert Instruments([]).of("AAPL") == Instrument(pattern="AAPL", calendar="24/7", timezone="UTC")


@pytest.mark.parametrize("symbol", ["BRKxB", "xBRK.B"])
def test_all_but_the_star_is_itself(symbol: str) -> None:
    assert Instruments([Instrument(pattern="BRK.*", calendar="XNYS")]).of(symbol).calendar == "24/7"


def test_instruments_of_a_file(tmp_path: Path) -> None:
    toml, js = tmp_path / "a.toml", tmp_path / "a.json"
    toml.write_text('[[instruments]]\npattern = "BTC*"\ntick_size = 0.5\n')
    js.write_text('{"instruments": [{"pattern": "BTC*", "tick_size": 0.5}]}')
    assert read_instruments(toml) == read_instruments(js) == [Instrument(pattern="BTC*", tick_size=0.5)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.toml", b"[[instruments]]\ncalendar = 3\n", "does not list instruments"),
        ("a.toml", b"[[instruments]\n", "does not list instruments"),
        ("a.toml", b"other = 1\n", "it has no `instruments`"),
        ("a.toml", b"\xff\xfe", "does not list instruments"),
        ("a.json", b"{", "does not list instruments"),
        ("a.json", b'"x"', "does not list instruments"),
    ],
)
def test_a_file_that_lists_no_instruments(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(UnreadableFile, match=message):
        read_instruments(file)
    with pytest.raises(UnreadableFile, match="cannot read"):
        read_instruments(tmp_path / "nothing.toml")


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("-0.01", "tick_size -0.01; expected a finite number above 0"),
        ("0", "tick_size 0.0; expected"),
        ("nan", "tick_size nan; expected"),
        ("inf", "tick_size inf; expected"),
        ("1" + 400 * "0", "tick_size"),
        ('"cent"', "`str` - at `$.tick_size`"),
        ("true", "`bool` - at `$.tick_size`"),
    ],
)
def test_a_tick_size_that_is_none_names_the_instrument_and_the_field(tmp_path: Path, size: str, message: str) -> None:
    file = tmp_path / "a.toml"
    file.write_text(f'[[instruments]]\npattern = "AAPL"\n\n[[instruments]]\npattern = "BTC*"\ntick_size = {size}\n')
    with pytest.raises(UnreadableFile, match=re.escape(message)) as caught:
        read_instruments(file)
    assert str(file) in caught.value.message
    assert "instrument 'BTC*'" in caught.value.message


def test_a_tick_size_in_a_body(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"instrument 'A' has the tick_size -1\.0") as caught:
        decode_instruments(b'[{"pattern": "A", "tick_size": -1}]')
    assert caught.value.details == {"field": "tick_size", "instrument": "A"}


@pytest.mark.parametrize("body", [b'[{"pattern": "A"}]', b'{"instruments": [{"pattern": "A"}]}'])
def test_a_body_is_a_list_or_names_one(body: bytes) -> None:
    assert decode_instruments(body) == [Instrument(pattern="A")]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"3", b"{}", b'[{"calendar": "XNYS"}]', b'{"instruments": 3}'])
def test_a_body_that_lists_no_instruments(body: bytes) -> None:
    with pytest.raises(InvalidData, match="these are not instruments"):
        decode_instruments(body)
