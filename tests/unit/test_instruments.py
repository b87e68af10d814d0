"""Which instrument a symbol is: one rule, for reading, loading and uploading."""

from __future__ import annotations

import pytest

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
