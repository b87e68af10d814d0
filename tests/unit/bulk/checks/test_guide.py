"""`docs/guides/quality.md` names every rule with its severity and every limit, and shows what is found."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tapehouse.bulk.checks.base import Grade
from tapehouse.bulk.checks.grade import THRESHOLDS
from tapehouse.bulk.checks.rules import RULES
from tapehouse.bulk.validate import INVARIANTS

ROOT = Path(__file__).parents[4]
GUIDE = (ROOT / "docs" / "guides" / "quality.md").read_text()


def test_every_rule_is_in_the_table_with_its_severity() -> None:
    rows = dict(re.findall(r"^\| `([\w-]+)` \| ([\w, ]+) \|", GUIDE, re.MULTILINE))
    said = {code: f"{rule.severity}{', counts as holes' if rule.hole else ''}" for code, rule in RULES.items()}
    assert {code: rows.get(code) for code in said} == said


def test_the_limits_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| ([A-D]) \| ([\d.]+) % \| ([\d.]+) % \| ([\d.]+) % \|", GUIDE, re.MULTILINE)
    said = {Grade(letter): tuple(round(float(limit) / 100, 9) for limit in limits) for letter, *limits in rows}
    assert said == THRESHOLDS


def test_every_invariant_is_named_with_what_becomes_of_the_row() -> None:
    lines = [re.sub(r"\*[\w ]+\*", "{}", line) for line in GUIDE.splitlines() if line.startswith("| ")]
    for invariant in INVARIANTS.values():
        (line,) = [line for line in lines if invariant.says in line]
        assert line.endswith(f"({invariant.severity}) |")


def test_the_python_finds_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    exec(compile(code, "quality.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in printed if " 1d " in line] == [
        [symbol, "1d", "A"] for symbol in ("AAPL", "FB", "GOOG", "IBM", "MSFT")
    ]
    (shown,) = re.findall(r"```text\n(.*?)```", GUIDE, re.DOTALL)
    assert printed[1:4] == shown.splitlines()
