"""A simulated market: docs/reference/simulation.md."""

from __future__ import annotations

from tapehouse.sources.sim.faults import Done, Faults, Spoiled, spoil
from tapehouse.sources.sim.feed import SimFeed
from tapehouse.sources.sim.hours import SessionsOf, calendar_sessions
from tapehouse.sources.sim.market import SimBatch, SimMarket
from tapehouse.sources.sim.prices import Correlation
from tapehouse.sources.sim.universe import SimInstrument, default_symbols

__all__ = [
    "Correlation",
    "Done",
    "Faults",
    "SessionsOf",
    "SimBatch",
    "SimFeed",
    "SimInstrument",
    "SimMarket",
    "Spoiled",
    "calendar_sessions",
    "default_symbols",
    "spoil",
]
