"""The `tapehouse` command as people use it, rightly and wrongly: real processes, real files."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tapehouse import Client, TapehouseError
from tapehouse.store.owner import find_owner

ROOT = Path(__file__).parents[2]
TAPEHOUSE = Path(sys.executable).with_name("tapehouse")
PATIENCE_S = 60.0

HEADER = "symbol,date,open,high,low,close,volume\n"
DAYS = HEADER + "".join(f"A,2024-01-0{day},1,2,0.5,1.5,10\n" for day in range(2, 6))
BAD_ROW = "A,2024-01-08,9,2,1,1,5\n"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A working directory with two days in days.csv, and nothing loaded."""
    (tmp_path / "days.csv").write_text(DAYS)
    return tmp_path


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which the example is loaded; for tests that only read."""
    folder = tmp_path_factory.mktemp("example")
    shutil.copytree(ROOT / "examples", folder / "examples")
    run(folder, "load", "examples/data/us-daily.csv.gz", "--instruments", "examples/instruments.toml")
    return folder


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TAPEHOUSE_")}
    return kept | more


def call(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TAPEHOUSE, *arguments],
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        stdin=subprocess.DEVNULL,
    )


def run(folder: Path, *arguments: str) -> str:
    """Standard output of a command that has to succeed."""
    done = call(folder, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(folder: Path, *arguments: str, code: int = 1, **variables: str) -> str:
    """Standard error of a command that has to fail so: with a sentence, and without a traceback."""
    done = call(folder, *arguments, **variables)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()
    return done.stderr


@contextlib.contextmanager
def serving(folder: Path, *flags: str) -> Iterator[str]:
    """The address of a server of the folder's data."""
    process = subprocess.Popen(
        [TAPEHOUSE, "serve", "--port", "0", *flags],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found, process.stderr and process.stderr.read()
            yield found.group()
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0


def test_load_says_what_it_takes_the_file_for_and_what_became_of_the_rows(here: Path) -> None:
    (here / "days.csv").write_text(DAYS + BAD_ROW)
    done = call(here, "load", "days.csv")
    assert done.returncode == 0
    assert done.stderr.index("bars of 1d") < done.stderr.index("1 row to quarantine")
    assert "5 rows read" in done.stdout
    assert "4 inserted, 1 quarantined" in done.stdout
    (quarantined,) = (here / "data" / "quarantine").rglob("*.csv")
    assert "A,2024-01-08,9,2,1,1,5" in quarantined.read_text()
    again = json.loads(run(here, "load", "days.csv", "--json"))
    assert (again["totals"]["inserted"], again["totals"]["unchanged"]) == (0, 4)
    refused(here, "load", "days.csv", "--strict")


def test_what_cannot_be_loaded(here: Path) -> None:
    (here / "empty.csv").touch()
    (here / "notes.csv").write_text("to,do\nbuy,milk\n")
    assert "empty" in refused(here, "load", "empty.csv")
    assert "--map" in refused(here, "load", "notes.csv")
    assert "nothing.csv" in refused(here, "load", "nothing.csv")
    assert "FIELD=COLUMN" in refused(here, "load", "days.csv", "--map", "open", code=2)
    assert "unknown interval '7m'" in refused(here, "load", "days.csv", "--interval", "7m")
    assert "notes.csv" in refused(here, "load", "empty.csv", "notes.csv")
    assert not (here / "data").exists()
    both = call(here, "load", "days.csv", "empty.csv")
    assert (both.returncode, "4 inserted" in both.stdout) == (1, True)


def test_load_can_only_look(here: Path) -> None:
    found = json.loads(run(here, "load", "days.csv", "--dry-run", "--json"))
    (file,) = found["files"]
    assert (file["file"]["kind"], file["file"]["interval"]) == ("bars", "1d")
    assert (found["rows"], found["exact"], file["rows"]) == (4, True, 4)
    assert "1 file to load, 0 that cannot be; 4 rows of 1 symbol," in run(here, "load", "days.csv", "--dry-run")
    assert not (here / "data").exists()


def test_bars_in_every_format(example: Path, tmp_path: Path) -> None:
    read = ("bars", "AAPL", "--start", "2013")
    lines = run(example, *read).splitlines()
    assert lines[0] == "symbol,timestamp,open,high,low,close,volume"
    assert len(lines) == 1 + 41
    found = json.loads(run(example, *read, "--json"))
    assert [found["commit"], len(found["rows"])] == [1, 41]
    with (tmp_path / "b.arrow").open("wb") as file:
        subprocess.run([TAPEHOUSE, *read, "-f", "arrow"], cwd=example, env=environment(), stdout=file, check=True)
    closes = pl.read_ipc_stream(tmp_path / "b.arrow")["close"].to_list()
    assert closes == [row["close"] for row in found["rows"]]


def test_bars_narrowed(example: Path) -> None:
    newest = run(example, "bars", "AAPL", "-n", "1", "-r", "--columns", "close", "-f", "csv")
    assert newest.splitlines() == ["symbol,timestamp,close", "AAPL,2013-03-01T05:00:00Z,430.47"]
    weekly = json.loads(run(example, "bars", "IBM", "--interval", "1w", "--limit", "1", "--json"))
    assert weekly["made_from"] == {"IBM": ["1d"]}


def test_what_bars_refuses(example: Path) -> None:
    assert "is not before end" in refused(example, "bars", "AAPL", "--start", "2013", "--end", "2012")
    assert "unknown interval" in refused(example, "bars", "AAPL", "--interval", "7m")
    assert "NOPE" in refused(example, "bars", "NOPE")
    assert "2013-13" in refused(example, "bars", "AAPL", "--start", "2013-13-01")
    error = json.loads(call(example, "bars", "AAPL", "--interval", "7m", "--json").stdout)["error"]
    assert error["code"] == "unknown_interval"


def test_the_other_readers(example: Path) -> None:
    assert run(example, "symbols", "*M*").split() == ["IBM", "MSFT"]
    assert json.loads(run(example, "symbols", "--json")) == ["AAPL", "FB", "GOOG", "IBM", "MSFT"]
    (row,) = json.loads(run(example, "coverage", "GOOG", "--json"))
    assert (row["first"], row["calendar"]) == ("2004-08-19T04:00:00Z", "XNYS")
    assert "GOOG" in run(example, "coverage", "--spans", "2")
    assert json.loads(run(example, "stats", "--json"))["symbols"] == 5
    assert "symbols" in run(example, "stats")
    (commit,) = json.loads(run(example, "commits", "--json"))
    assert commit["inserted"] > 12_000
    assert {each["calendar"] for each in json.loads(run(example, "instruments", "show", "--json"))} == {"XNYS"}
    assert run(example, "version").startswith("tapehouse ")


def test_the_doctor(example: Path) -> None:
    report = json.loads(run(example, "doctor", "--json"))
    assert report["ok"], report
    assert "did you mean" in call(example, "doctor", TAPEHOUSE_PROT="1").stdout


def test_commands_go_through_the_folders_owner(here: Path) -> None:
    run(here, "load", "days.csv")
    with serving(here) as address:
        assert run(here, "symbols") == run(here, "symbols", "--url", address) == "A\n"
        (here / "more.csv").write_text(DAYS.replace("A,", "B,"))
        assert "4 inserted" in run(here, "load", "more.csv")
        assert call(here, "bars", "B", TAPEHOUSE_URL=address).stdout.count("\n") == 5
        assert "8 rows" in run(here, "compact", "--everything")
        assert json.loads(run(here, "doctor", "--json"))["ok"]
        deleted = json.loads(run(here, "delete", "B", "-i", "1d", "--yes", "--json"))
        assert deleted["deleted"] == 4
        assert "in use by process" in refused(here, "serve", "--port", "0")
    assert run(here, "symbols") == "A\n"


def test_keys(here: Path) -> None:
    (here / "data").mkdir()
    token = run(here, "keys", "add", "reader").strip()
    assert token.startswith("th_")
    assert token not in (here / "data" / "keys.json").read_text()
    assert "already" in refused(here, "keys", "add", "reader")
    assert [key["name"] for key in json.loads(run(here, "keys", "list", "--json"))] == ["reader"]
    with serving(here, "--host", "127.0.0.1") as address:
        assert "TAPEHOUSE_KEY" in refused(here, "symbols", "--url", address)
        assert call(here, "symbols", "--url", address, TAPEHOUSE_KEY=token).returncode == 0
        run(here, "keys", "remove", "reader")
    assert "there is no key" in refused(here, "keys", "remove", "reader")
    assert "read, write, admin" in refused(here, "keys", "add", "x", "--scope", "root", code=2).replace("'", "")


def test_wrong_usage(here: Path) -> None:
    assert "Did you mean 'bars'" in refused(here, "bras", code=2)
    assert "--interval" in refused(here, "bars", "--intervall", "1d", code=2)
    assert "SYMBOL" in refused(here, "delete", code=2)
    assert "--yes" in refused(here, "delete", "A", code=2)
    assert "integer" in refused(here, "bars", "--limit", "many", code=2)


def test_places_that_are_none(here: Path) -> None:
    assert "tapehouse load" in refused(here, "bars", "--store", "nothing")
    assert "nobody answers" in refused(here, "bars", "--url", "http://127.0.0.1:1")
    assert "did you mean" in refused(here, "bars", TAPEHOUSE_STROE="x")
    assert "is not an address" in refused(here, "bars", "--url", "http://")
    for beyond in ("/api", "/?key=1", "#top"):
        said = refused(here, "bars", "--url", f"http://127.0.0.1:1{beyond}")
        assert f"leave out '{beyond}'; expected http://host:port" in said
    (here / "damaged").mkdir()
    (here / "damaged" / "tapehouse.duckdb").write_bytes(b"x" * 10_000)
    assert "doctor" in refused(here, "bars", "--store", "damaged")


def test_a_delete_of_what_is_not_there(here: Path) -> None:
    (here / "days.csv").write_text(DAYS)
    run(here, "load", "days.csv")
    before = json.loads(run(here, "commits", "--json"))
    assert "no data for AA, ZZZ; there is A" in refused(here, "delete", "A", "AA", "ZZZ", "-i", "1d", "--yes")
    assert json.loads(run(here, "commits", "--json")) == before
    assert "there were no 1m bars of A" in refused(here, "delete", "A", "-i", "1m", "--yes")
    done = call(here, "delete", "AA", "-i", "1d", "--yes", "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["symbols"]) == (1, ["AA"])
    assert "4 rows deleted" in run(here, "delete", "A", "-i", "1d", "--yes")


def test_a_traceback_only_when_asked_for(here: Path) -> None:
    assert "Traceback" in call(here, "bars", "--store", "nothing", "--debug").stderr


def test_a_pipe_that_is_closed_early_is_no_error(example: Path) -> None:
    script = f"{TAPEHOUSE} bars --format csv | head -n 2"
    done = subprocess.run(["bash", "-c", script], cwd=example, env=environment(), capture_output=True, text=True)
    assert (done.stdout.count("\n"), done.stderr) == (2, "")


def test_ctrl_c_ends_the_server(here: Path) -> None:
    (here / "data").mkdir()
    process = subprocess.Popen(
        [TAPEHOUSE, "serve", "--port", "0"], cwd=here, env=environment(), stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert "serves" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0


def test_others_read_while_a_load_runs_and_ctrl_c_keeps_what_was_committed(here: Path) -> None:
    with (here / "long.csv").open("w") as file:
        file.write("symbol,timestamp,open,high,low,close,volume\n")
        file.writelines(f"A,{1_500_000_000 + 60 * n},1,2,0.5,1.5,10\n" for n in range(3_000_000))
    process = subprocess.Popen(
        [TAPEHOUSE, "load", "long.csv", "--json", "-i", "1m"],
        cwd=here,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        wait_for_rows(here / "data", process)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=PATIENCE_S)
    report: dict[str, Any] = json.loads(out)
    assert process.returncode == 130
    assert report["interrupted"]
    with Client(here / "data") as client:
        held = sum(series.rows for series in client.coverage())
    assert held == report["totals"]["inserted"] < 3_000_000


def wait_for_rows(folder: Path, loading: subprocess.Popen[str]) -> None:
    """Until the first rows can be read, through the process that loads more."""
    while loading.poll() is None:
        time.sleep(0.02)
        if find_owner(folder) is None:
            continue  # a client would own the folder before the load does
        with contextlib.suppress(TapehouseError), Client(folder) as client:
            if client.symbols():
                return
    pytest.fail("the load was over before any of its rows could be read")


def test_on_a_terminal_bars_are_a_table(example: Path) -> None:
    shown = on_a_terminal(example, "bars", "AAPL")
    assert "2000-03-01T05:00:00Z" in shown
    assert "..." in shown
    assert "2013-03-01T05:00:00Z" in shown
    assert "3,270 rows as of commit 1" in shown
    assert "not for a terminal" in on_a_terminal(example, "bars", "AAPL", "--format", "arrow")


def test_on_a_terminal_delete_asks(here: Path) -> None:
    run(here, "load", "days.csv")
    assert "Aborted" in on_a_terminal(here, "delete", "A", "-i", "1d", say="n\n")
    assert run(here, "bars").count("\n") == 5
    assert "4 rows deleted" in on_a_terminal(here, "delete", "A", "-i", "1d", say="y\n")


def on_a_terminal(folder: Path, *arguments: str, say: str = "") -> str:
    """What the command shows where it is connected to a terminal of 120 columns."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [TAPEHOUSE, *arguments],
        cwd=folder,
        env=environment(COLUMNS="120", TERM="xterm"),
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    os.write(leader, say.encode())
    shown = b""
    with process, contextlib.suppress(OSError):  # the kernel says so when the last one has closed the terminal
        while data := os.read(leader, 65_536):
            shown += data
    os.close(leader)
    return shown.decode()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(here: Path, shell: str) -> None:
    assert "tapehouse" in run(here, "--show-completion", shell)


def test_completion_knows_the_commands(here: Path) -> None:
    done = call(here, _TAPEHOUSE_COMPLETE="complete_bash", COMP_WORDS="tapehouse co", COMP_CWORD="1")
    assert done.stdout.split() == ["coverage", "commits", "compact"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("symbols", "--no-such"), "No such option"),
        (("undo",), "Missing argument 'BATCH'"),
        (("bars", "--limit", "many"), "should be a valid integer"),
        (("load", "days.csv", "--map", "close"), "'close' is not FIELD=COLUMN"),
        (("no-such",), "No such command"),
    ],
)
def test_wrong_usage_with_json_is_an_error_document(here: Path, arguments: tuple[str, ...], message: str) -> None:
    done = call(here, *arguments, "--json")
    assert (done.returncode, done.stderr) == (2, "")
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "invalid_request"
    assert message in error["message"]


def test_a_file_that_is_refused_is_named_once_and_counted(here: Path) -> None:
    (here / "more.csv").write_text(DAYS.replace("2024-01-0", "01/0").replace(",1,2", "/2024,1,2"))
    done = call(here, "load", "days.csv", "more.csv")
    assert done.returncode == 1
    assert done.stderr.count("can be taken for each other") == 1
    assert "1 of 2 files were not loaded to their end" in done.stdout
