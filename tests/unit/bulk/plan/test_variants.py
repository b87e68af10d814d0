"""Bid and ask, adjusted and not: told by the names of files, and never made one series of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tapehouse import bulk
from tapehouse.bulk.plan.variants import variant_of

MINUTES = "timestamp,open,high,low,close,volume\n" + "".join(f"2024-01-02 14:{n:02},1,3,0.5,2,10\n" for n in range(40))


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("EURUSD_Candlestick_1_M_BID_01.01.2024-31.01.2024.csv", "bid"),
        ("EURUSD_Candlestick_1_M_ASK_01.01.2024-31.01.2024.csv", "ask"),
        ("AAPL_full_1min_UNADJUSTED.txt", "unadjusted"),
        ("AAPL_full_1min_adjsplit.txt", "adjsplit"),
        ("ASKET_1m.csv", None),
        ("AAPL_1m.csv", None),
    ],
)
def test_names_say_which_prices(name: str, variant: str | None) -> None:
    assert variant_of(name) == variant


def test_variants_of_one_series_are_not_loaded_together(tmp_path: Path) -> None:
    for name in ("EURUSD_1m_BID.csv", "EURUSD_1m_ASK.csv", "GBPUSD_1m_ASK.csv", "AAPL_1m.csv"):
        (tmp_path / name).write_text(MINUTES)
    options = bulk.LoadOptions(symbol_from="([A-Z]+)_1m")
    told = {file.name: file for file in bulk.plan([tmp_path], options)}
    assert {file.symbol for file in told.values()} == {"EURUSD", "GBPUSD", "AAPL"}
    refused = {name: file.problem.message for name, file in told.items() if file.problem is not None}
    assert set(refused) == {"EURUSD_1m_BID.csv", "EURUSD_1m_ASK.csv"}
    assert "and so has EURUSD_1m_ASK.csv, the one bid and the other ask prices" in refused["EURUSD_1m_BID.csv"]
    assert "the file's name says: ask" in told["GBPUSD_1m_ASK.csv"].notes

    (alone,) = bulk.plan([tmp_path / "EURUSD_1m_BID.csv"], options)
    assert alone.problem is None
