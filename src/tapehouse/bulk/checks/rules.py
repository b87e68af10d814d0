"""Every rule, with how sure it is: a finding names one of these. `docs/guides/quality.md` says what to do about it."""

from __future__ import annotations

import msgspec

from tapehouse.bulk.checks.base import Severity
from tapehouse.model import Kind


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that can be found. `hole`: its rows are bars that are missing, and count as such in the grade."""

    code: str
    severity: Severity
    kinds: tuple[Kind, ...]
    what: str
    hole: bool = False


_BARS, _TICKS, _ALL = (Kind.BARS,), (Kind.TRADES, Kind.QUOTES), tuple(Kind)
_SIZED = (Kind.BARS, Kind.TRADES)
_INFO, _WARNING, _ERROR = Severity.INFO, Severity.WARNING, Severity.ERROR


def _rule(code: str, severity: Severity, kinds: tuple[Kind, ...], what: str, *, hole: bool = False) -> Rule:
    return Rule(code=code, severity=severity, kinds=kinds, what=what, hole=hole)


RULES: dict[str, Rule] = {
    rule.code: rule
    for rule in (
        _rule("decimal-slip", _ERROR, _ALL, "a price that is 10, 100 or 1,000 times its neighbours, or that part"),
        _rule("unit-change", _ERROR, _ALL, "prices 100 or 1,000 times what they were (or that part), and they stay so"),
        _rule("too-close", _ERROR, _BARS, "days, weeks or months that begin before the ones above them are over"),
        _rule("spike", _WARNING, _ALL, "a price that leaves the band and is back within three rows"),
        _rule("wick", _WARNING, _BARS, "a high or low beyond the band around this close and the one before"),
        _rule("split-like", _WARNING, _ALL, "a jump by the ratio of a split, which no adjusted close explains"),
        _rule("split", _INFO, _BARS, "a split, as the adjusted close shows"),
        _rule("jump", _INFO, _ALL, "a price that leaves the band and stays"),
        _rule("overnight-jump", _INFO, _ALL, "the same after a pause in trading"),
        _rule("no-positive-price", _INFO, _ALL, "a price of zero or below"),
        _rule("stuck", _WARNING, _ALL, "prices that stand still for longer than their activity explains"),
        _rule("volume-spike", _INFO, _SIZED, "a volume far above its neighbours"),
        _rule("zero-volume", _WARNING, _BARS, "no volume for longer than its activity explains"),
        _rule(
            "moved-without-volume", _WARNING, _BARS, "prices that moved in a bar without volume, where others have it"
        ),
        _rule("no-volume", _INFO, _BARS, "no bar has any volume"),
        _rule("no-session", _WARNING, _ALL, "rows on a date on which the exchange is closed"),
        _rule("outside-hours", _INFO, _ALL, "rows outside the hours of the exchange, on a date on which it trades"),
        _rule("missing-session", _WARNING, _ALL, "sessions of the exchange without a row", hole=True),
        _rule("gap", _WARNING, _BARS, "bars missing for longer than the activity explains", hole=True),
        _rule("no-calendar", _INFO, _ALL, "nobody said which calendar counts, so that missing bars are not known"),
        _rule("repeated-row", _INFO, _ALL, "rows that are there twice"),
        _rule("conflicting-rows", _WARNING, _BARS, "different bars of one time, of which the last counts"),
        _rule("out-of-order", _INFO, _ALL, "rows that come long after later ones, and were not looked at"),
        _rule("crossed", _WARNING, (Kind.QUOTES,), "a bid above the ask"),
        _rule("locked", _INFO, (Kind.QUOTES,), "a bid that equals the ask"),
        _rule("wide-spread", _INFO, (Kind.QUOTES,), "a spread far above the usual one"),
        _rule("outside-quotes", _WARNING, (Kind.TRADES,), "a trade far from the quotes of its time"),
        _rule("outside-bars", _WARNING, (Kind.TRADES,), "a trade far outside the bar of its time"),
    )
}
