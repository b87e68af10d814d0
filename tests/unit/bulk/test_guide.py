"""`docs/guides/load.md` says what happens: its Python runs, and what it shows is what is printed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tapehouse import bulk
from tapehouse.bulk.recognise.known import read_descriptions
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


@pytest.fixture
def minute(folder: Path) -> Path:
    """The folder of the guide that has bad rows, and a file that cannot be loaded."""
    bars = [f"2024-01-02 09:{30 + n}:00,185.{60 + n},185.9,185.2,185.5,{1000 + n},185.55," for n in range(8)]
    (shown,) = blocks("csv")
    for line in shown.splitlines()[1:]:
        number, row = int(line.split(",")[1]), line.split('"')[-2]
        bars[number - 2] = row
    (folder / "minute").mkdir()
    (folder / "minute" / "AAPL_1m.csv").write_text("\n".join([HEADER, *bars]) + "\n")
    dates = "\n".join(f"0{n}/02/2024,1,2,1,2,5" for n in (1, 2, 3))
    (folder / "minute" / "MSFT_1m.csv").write_text(f"date,open,high,low,close,volume\n{dates}\n")
    return folder / "minute"


@pytest.mark.usefixtures("minute")
def test_the_quarantine_is_what_is_written() -> None:
    (shown,) = blocks("csv")
    options = bulk.LoadOptions(timezone="America/New_York")
    plan = bulk.plan(["minute"], options)
    assert "\n".join(line for file in plan for line in bulk.describe(file)) in GUIDE
    report = bulk.load(["minute"], MemoryStore(), options, quarantine_dir="q", files=plan)
    assert report.files[0].quarantine is not None
    assert Path(report.files[0].quarantine).read_text() == shown
    assert (report.totals.inserted, report.totals.quarantined) == (5, 3)


def test_a_zone_is_said_for_the_files_of_one_vendor(folder: Path) -> None:
    histdata = ROOT / "tests" / "corpus" / "histdata-bars" / "DAT_ASCII_EURUSD_M1_201202.csv"
    shutil.copy(histdata, folder)
    times = "\n".join(f"2012-07-02 09:3{n}:00,1,2,0.5,1.5,10" for n in range(3))
    (folder / "AAPL_1m.csv").write_text(f"time,open,high,low,close,volume\n{times}\n")

    def zones(**options: Any) -> list[str]:
        plan = bulk.plan([str(folder / "AAPL_1m.csv"), str(folder / histdata.name)], bulk.LoadOptions(**options))
        return re.findall(r"taken as ([^;]+)", "\n".join(line for file in plan for line in bulk.describe(file)))

    assert zones(timezone="America/New_York") == ["America/New_York", "America/New_York"]
    (described,) = (block for block in blocks("toml") if "Broker Y" in block)
    formats = read_descriptions(tomllib.loads(described)["formats"], "tapehouse.toml")
    assert zones(formats=formats) == ["America/New_York", "-05:00"]


@pytest.mark.usefixtures("minute")
@pytest.mark.parametrize("shown", blocks("console"), ids=["good", "bad"])
def test_what_is_shown_is_what_the_commands_print(shown: str, folder: Path) -> None:
    command, _, output = shown.partition("\n")
    done = subprocess.run(
        [Path(sys.executable).parent / "tapehouse", *command.removeprefix("$ tapehouse ").split()],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("TAPEHOUSE_")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert _timeless(done.stdout.replace(str(folder), "/home/me/bars")) == _timeless(output)


def _timeless(output: str) -> str:
    """Without what is different each time."""
    return re.sub(r"load-\w+-\w+", "BATCH", re.sub(r"in [\d.]+ s \([\d,]+ rows/s\)", "in no time", output))
