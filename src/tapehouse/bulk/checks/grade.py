"""Grades from counts, and the sum of looks. Pure arithmetic: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from msgspec.structs import replace

from tapehouse.bulk.checks.base import Finding, Grade, Look, Quality, Severity, Tally
from tapehouse.bulk.checks.rules import RULES

THRESHOLDS: dict[Grade, tuple[float, float, float]] = {
    Grade.A: (0.000_1, 0.002, 0.001),
    Grade.B: (0.001, 0.01, 0.01),
    Grade.C: (0.01, 0.05, 0.05),
    Grade.D: (0.05, 0.2, 0.2),
}
"""The largest shares of errors, warnings and holes that a grade allows; beyond those of D it is F."""

SHARES = ("errors", "warnings", "holes")
MAX_EXAMPLES = 5
MAX_LOOKS = 32
"""How many looks are kept apart; with more, the two neighbours in time with the fewest rows become one."""

_SEVERITY_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}


def shares(tally: Tally) -> tuple[float, float, float]:
    """The shares of errors, warnings and holes.

    Errors are bad rows of all that came (quarantined) plus wrong ones of those inspected, warnings rows of those
    inspected, holes missing bars of those expected (of inspected and missing ones where no calendar says).
    """
    quarantined = _share(tally.quarantined, tally.rows + tally.quarantined)
    errors = quarantined + _share(tally.errors, tally.inspected)
    holes = _share(tally.holes, tally.expected or tally.inspected + tally.holes)
    return errors, _share(tally.warnings, tally.inspected), holes


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def grade(tally: Tally) -> tuple[Grade | None, str]:
    """The best grade whose thresholds all shares keep, and the share that decided; None when nothing was inspected."""
    found = dict(zip(SHARES, shares(tally), strict=True))
    if not tally.inspected:
        return None, "no row was inspected"
    best = {name: _grade_of(place, found[name]) for place, name in enumerate(SHARES)}
    weight = dict(zip(SHARES, THRESHOLDS[Grade.A], strict=True))
    worst = max(SHARES, key=lambda name: (best[name], found[name] / weight[name]))
    return best[worst], _said(worst, found[worst], tally) if found[worst] else "nothing found"


def _said(worst: str, share: float, tally: Tally) -> str:
    """The share in the words of the counts that made it: rows in quarantine are told from wrong ones."""
    if worst != "errors":
        return _percent(worst, share)
    quarantined = _share(tally.quarantined, tally.rows + tally.quarantined)
    parts = {"quarantined": quarantined, "errors": _share(tally.errors, tally.inspected)}
    return ", ".join(_percent(name, part) for name, part in parts.items() if part)


def _percent(name: str, share: float) -> str:
    """A row of which several rules say something counts for each: there may be more than one for a row."""
    return f"{name}: {share:.4%}" if share <= 1 else f"{name}: {share:.1f} for each row"


def _grade_of(place: int, share: float) -> Grade:
    return next((each for each, limits in THRESHOLDS.items() if share <= limits[place]), Grade.F)


def severities(findings: Iterable[Finding]) -> dict[str, int]:
    """Rows by severity, as a tally counts them: those of holes are not among them."""
    rows = dict.fromkeys(("errors", "warnings", "infos"), 0)
    for finding in findings:
        if not RULES[finding.rule].hole:
            rows[f"{finding.severity}s"] += finding.rows
    return rows


def add_tallies(tallies: Iterable[Tally]) -> Tally:
    """The sum, count by count."""
    sums = dict.fromkeys(Tally.__struct_fields__, 0)
    for tally in tallies:
        for name in sums:
            sums[name] += getattr(tally, name)
    return Tally(**sums)


def add_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """One of each rule, worst first, with the first examples by time; all of one series."""
    sums: dict[str, Finding] = {}
    for one in findings:
        known = sums.get(one.rule)
        examples = sorted({*(known.examples if known else ()), *one.examples}, key=lambda each: each.time)
        count, rows = (known.count, known.rows) if known else (0, 0)
        kept = tuple(examples[:MAX_EXAMPLES])
        sums[one.rule] = replace(one, count=count + one.count, rows=rows + one.rows, examples=kept)
    return tuple(sorted(sums.values(), key=lambda each: (_SEVERITY_ORDER[each.severity], -each.rows, each.rule)))


def quality(looks: Sequence[Look]) -> Quality:
    """What looks at one series say together; there is at least one.

    A newer look replaces those at spans inside its own that had no more rows: a file that is loaded again is not
    counted twice.
    """
    kept: list[Look] = []
    for look in looks:
        kept = [*(other for other in kept if not _covers(look, other)), look]
    newest = looks[-1]
    kept.sort(key=lambda look: (look.first, look.last))
    stored = [look for look in kept if look.tally.rows] or kept
    overlapping = any(after.first <= before.last for before, after in pairwise(kept))
    kept = _fold(kept)
    tally = add_tallies(look.tally for look in kept)
    letter, decided_by = grade(tally)
    return Quality(
        symbol=newest.symbol,
        kind=newest.kind,
        interval=newest.interval,
        grade=letter,
        decided_by=decided_by,
        first=stored[0].first,
        last=max(look.last for look in stored),
        tally=tally,
        findings=add_findings(finding for look in kept for finding in look.findings),
        batch=newest.batch,
        commit=newest.commit,
        overlapping=overlapping,
        looks=tuple(kept),
    )


def _covers(newer: Look, older: Look) -> bool:
    inside = newer.first <= older.first and older.last <= newer.last
    return inside and older.tally.rows <= newer.tally.rows


def _fold(looks: list[Look]) -> list[Look]:
    while len(looks) > MAX_LOOKS:
        sizes = [a.tally.rows + b.tally.rows for a, b in pairwise(looks)]
        at = sizes.index(min(sizes))
        looks[at : at + 2] = [_joined(looks[at], looks[at + 1])]
    return looks


def _joined(earlier: Look, later: Look) -> Look:
    newest = max(earlier, later, key=lambda look: look.commit)
    return replace(
        newest,
        first=min(earlier.first, later.first),
        last=max(earlier.last, later.last),
        commit=min(earlier.commit, later.commit),  # as old as its oldest part, so that what that lost is noticed
        tally=add_tallies((earlier.tally, later.tally)),
        findings=add_findings((*earlier.findings, *later.findings)),
    )
