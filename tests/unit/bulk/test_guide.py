"""`docs/guides/load.md` says what happens: its Python runs, and what it shows is what is printed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tapehouse import bulk
from tapehouse.store.memory import MemoryStore

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "guides" / "load.md").read_text()
HEADER = "time,open,high,low,close,volume,vwap,note"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(ROOT / "examples" / "data" / "us-daily.csv.gz", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    exec(compile(code, "load.md", "exec"), {})
    assert capsys.readouterr().out.endswith("12154 True\n")
    assert (folder / "us-daily.csv.gz").exists()


@pytest.mark.usefixtures("folder")
def test_the_first_plan_is_what_is_printed() -> None:
    (file,) = bulk.plan(["us-daily.csv.gz"], bulk.LoadOptions())
    assert "\n".join(bulk.describe(file, [])) in GUIDE


def test_the_quarantine_is_what_is_written(folder: Path) -> None:
    bars = [f"2024-01-02 09:{30 + n}:00,185.{60 + n},185.9,185.2,185.5,{1000 + n},185.55," for n in range(8)]
    (shown,) = blocks("csv")
    for line in shown.splitlines()[1:]:
        number, row = int(line.split(",")[1]), line.split('"')[-2]
        bars[number - 2] = row
    (folder / "minute").mkdir()
    (folder / "minute" / "AAPL_1m.csv").write_text("\n".join([HEADER, *bars]) + "\n")
    dates = "\n".join(f"0{n}/02/2024,1,2,1,2,5" for n in (1, 2, 3))
    (folder / "minute" / "MSFT_1m.csv").write_text(f"date,open,high,low,close,volume\n{dates}\n")
    options = bulk.LoadOptions(timezone="America/New_York")
    plan = bulk.plan(["minute"], options)
    assert "\n".join(line for file in plan for line in bulk.describe(file)) in GUIDE
    report = bulk.load(["minute"], MemoryStore(), options, quarantine_dir="q", files=plan)
    assert report.files[0].quarantine is not None
    assert Path(report.files[0].quarantine).read_text() == shown
    assert (report.totals.inserted, report.totals.quarantined) == (5, 3)
