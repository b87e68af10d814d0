"""Loads through the owner of a folder, as people ask for them; and what can be asked afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.system.conftest import LIMIT_S, TAPEHOUSE, MakesServer, Server, clean_environment, until

from tapehouse import Client

HEADER = "symbol,date,open,high,low,close,volume\n"
DAYS = HEADER + "".join(f"A,2024-01-{day:02d},100,102,99,{100 + day % 3},1000\n" for day in range(1, 29))


def minutes(count: int) -> str:
    """So many one-minute bars of one symbol."""
    lines = (f"L,{1_600_000_020 + 60 * n},1,2,0.5,1.5,10" for n in range(count))
    return "symbol,timestamp,open,high,low,close,volume\n" + "\n".join(lines)


@pytest.fixture
def server(make_server: MakesServer) -> Iterator[Server]:
    made = make_server()
    (made.folder / "days.csv").write_text(DAYS)
    made.start()
    yield made
    made.stop()


def begin(server: Server, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """A command that goes on while the test does."""
    return subprocess.Popen(
        [TAPEHOUSE, *arguments],
        cwd=server.folder,
        env=clean_environment() | {"TAPEHOUSE_STORE": server.store} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def listed(server: Server, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(server.run(name, "--json"))
    return found


def test_the_list_of_jobs_names_files_that_were_refused(server: Server) -> None:
    for name in ("one.csv", "two.csv"):
        (server.folder / name).write_text("a;b\n1;2\n")
    run = begin(server, "load", "days.csv", "one.csv", "two.csv")
    run.communicate(timeout=LIMIT_S)
    assert run.returncode == 1
    (job,) = listed(server, "jobs")
    assert (job["state"], job["files"], job["refused"], job["report"]) == ("done", 3, 2, None)
    shown = begin(server, "jobs")
    table, said = shown.communicate(timeout=LIMIT_S)
    assert "1 of 3 files loaded" in table
    assert [line.split(": ")[1:3] for line in said.splitlines()] == [["not loaded", f"{n}.csv"] for n in ("one", "two")]


def test_a_load_beside_a_server_is_its_job(server: Server) -> None:
    said = server.run("load", "days.csv", "--batch", "days", "--validate", "full")
    assert "28 inserted" in said
    assert "certified: 1 series, 28 rows" in said
    (job,) = listed(server, "jobs")
    assert (job["state"], job["batch"], job["what"]) == ("done", "days", [str(server.folder / "days.csv")])
    assert [batch["name"] for batch in listed(server, "batches")] == ["days"]
    assert server.run("certify", "days").startswith("days: 1 series, 28 rows")
    assert json.loads(server.run("certify", "days", "--json"))["batch"] == "days"
    (quality,) = listed(server, "quality")
    assert (quality["symbol"], quality["tally"]["inspected"]) == ("A", 28)
    server.run("delete", "A", "--interval", "1d", "--end", "2024-01-02", "--yes")
    assert "(stale)" in server.run("quality")
    (quality,) = json.loads(server.run("quality", "A", "--check", "--validate", "full", "--json"))
    assert (quality["tally"]["inspected"], quality["stale"]) == (27, False)
    assert listed(server, "jobs")[0]["kind"] == "quality"
    assert "27 rows removed, 0 brought back" in server.run("undo", "days", "--yes")
    assert server.run("symbols") == ""
    assert "undone by" in server.run("batches")


def test_a_load_by_url_sends_the_files(server: Server) -> None:
    report = json.loads(server.run("load", "days.csv", "--json", "--url", server.url))
    assert report["totals"]["inserted"] == 28
    assert report["files"][0]["file"]["path"] == "days.csv"
    assert list((server.folder / "data" / "spool").iterdir()) == []


def test_the_log_of_the_server_says_that_loads_begin_and_what_became_of_them(make_server: MakesServer) -> None:
    server = make_server("--log-format", "json")
    (server.folder / "days.csv").write_text(DAYS + "A,2024-02-01,100,1,99,100,1000\n")
    (server.folder / "none.csv").write_text("a;b\n1;2\n")
    server.start()
    server.run("load", "days.csv", "--batch", "days")
    failed = begin(server, "load", "none.csv")
    failed.communicate(timeout=LIMIT_S)
    assert failed.returncode == 1
    ids = [job["id"] for job in listed(server, "jobs")]
    server.stop()
    lines = [json.loads(line) for line in (server.folder / "server.log").read_text().splitlines()]
    said = [line for line in lines if line.get("kind") == "load"]
    assert [(line["level"], line.get("state")) for line in said[:2]] == [("info", None), ("info", "done")]
    assert [line["batch"] for line in said[:2]] == ["days", "days"]
    assert {line["job"] for line in said} == set(ids)
    assert [said[1][name] for name in ("rows", "inserted", "quarantined", "files", "refused")] == [29, 28, 1, 1, 0]
    assert (said[-1]["level"], said[-1]["state"], said[-1]["error"]) == ("warning", "failed", "unrecognised_file")
    server_lines = [line["message"] for line in lines if line["logger"] == "tapehouse.server"]
    assert server_lines == ["serving", "stopping"]


LAYOUT = """
[[formats]]
name = "Broker X"
kind = "bars"
shape = ["text", "date", "number", "number", "number", "number", "whole"]
columns = { symbol = "1", date = "2", close = "3", open = "4", high = "5", low = "6", volume = "7" }
interval = "1d"
"""


def test_a_server_knows_the_layouts_of_its_settings_file(make_server: MakesServer, tmp_path: Path) -> None:
    server = make_server()
    (server.folder / "tapehouse.toml").write_text(LAYOUT)
    server.start()
    (tmp_path / "days.csv").write_text("A,2024-01-02,1.5,1,2,0.5,10\nA,2024-01-03,1.5,1,2,0.5,10\n")
    with Client(server.url) as client:  # it knows of no settings file
        report = client.load(tmp_path / "days.csv")
        assert (report.files[0].file.recognised, report.totals.inserted) == ("Broker X", 2)
        assert client.bars("A")["close"].to_list() == [1.5, 1.5]
    server.stop()


def test_a_layout_that_makes_no_sense_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(LAYOUT.replace("1d", "7m"))
    done = subprocess.run(
        [TAPEHOUSE, "serve", "--config", "mine.toml", "--port", "0"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 1
    assert "mine.toml: [[formats]] number 1 (Broker X): Invalid enum value '7m'" in done.stderr
    assert not (tmp_path / "data").exists()


def test_if_empty_loads_once(server: Server) -> None:
    server.run("load", "days.csv", "--if-empty")
    assert server.run("load", "days.csv", "--if-empty") == ""
    assert json.loads(server.run("load", "days.csv", "--if-empty", "--json")) == {"symbols": 1, "loaded": False}
    assert len(listed(server, "jobs")) == 1


def test_an_undo_asks(server: Server) -> None:
    server.run("load", "days.csv", "--batch", "days")
    process = begin(server, "undo", "days")
    _, errors = process.communicate("", timeout=LIMIT_S)
    assert process.returncode == 2
    assert "28 inserted" in errors
    assert "--yes" in errors
    assert server.run("symbols") == "A\n"
    missing = begin(server, "undo", "nothing", "--yes", "--json")
    out, _ = missing.communicate(timeout=LIMIT_S)
    assert (missing.returncode, json.loads(out)["error"]["code"]) == (1, "not_found")


@pytest.mark.slow
def test_ctrl_c_cancels_the_job_and_resuming_loads_the_rest(server: Server) -> None:
    rows = 1_500_000
    (server.folder / "long.csv").write_text(minutes(rows))
    process = begin(server, "load", "long.csv", "-i", "1m", "--batch", "long")
    until("the job runs", lambda: any(job["progress"] for job in _jobs(server)))
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130, out + errors
    assert "Traceback" not in errors
    assert "--resume long" in errors
    assert listed(server, "jobs")[0]["state"] == "cancelled"
    report = json.loads(server.run("load", "long.csv", "-i", "1m", "--resume", "--json"))
    assert report["batch"] == "long"
    assert not report["interrupted"]
    assert json.loads(server.run("coverage", "L", "--json"))[0]["rows"] == rows


@pytest.mark.slow
def test_ctrl_c_cancels_a_check_of_quality_and_leaves_whole_grades(server: Server) -> None:
    (server.folder / "long.csv").write_text(minutes(1_500_000))
    server.run("load", "days.csv", "--validate", "full")
    server.run("load", "long.csv", "-i", "1m", "--validate", "off")
    before = listed(server, "quality")
    process = begin(server, "quality", "L", "--check", "--validate", "full")
    until("it watches its job", lambda: "tapehouse_job_watchers 1.0" in httpx.get(f"{server.url}metrics").text)
    until("it runs", lambda: _jobs(server)[0]["kind"] == "quality" and _jobs(server)[0]["state"] == "running")
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, out) == (130, ""), errors
    assert errors.splitlines()[-1].endswith(
        "look at all of them again with: tapehouse quality L --check --validate full"
    )
    assert "Traceback" not in errors
    assert _jobs(server)[0]["state"] == "cancelled"
    assert listed(server, "quality") == before
    (quality,) = json.loads(server.run("quality", "L", "--check", "--validate", "full", "--json"))
    assert quality["tally"]["inspected"] == 1_500_000


def _jobs(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{server.url}v1/jobs").json()["jobs"]
    return found


@pytest.mark.slow
def test_a_job_whose_server_was_killed_is_interrupted_and_goes_on(server: Server) -> None:
    rows = 1_500_000
    (server.folder / "long.csv").write_text(minutes(rows))
    process = begin(server, "load", "long.csv", "-i", "1m", "--batch", "long")
    until("the job runs", lambda: any(job["progress"] for job in _jobs(server)))
    server.process.kill()
    server.process.wait()
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert "may still run" in errors
    server.start()
    (job,) = listed(server, "jobs")
    assert job["state"] == "interrupted"
    assert "--resume long" in job["resume"]
    server.run("load", "long.csv", "-i", "1m", "--resume", "long")
    assert json.loads(server.run("coverage", "L", "--json"))[0]["rows"] == rows


def test_a_server_that_is_told_to_stop_interrupts_its_jobs(server: Server) -> None:
    (server.folder / "long.csv").write_text(minutes(400_000))
    process = begin(server, "load", "long.csv", "-i", "1m", "--batch", "long")
    until("the job runs", lambda: any(job["state"] == "running" for job in _jobs(server)))
    server.stop()
    assert server.process.returncode == 0
    _, errors = process.communicate(timeout=LIMIT_S)
    server.start()
    (job,) = listed(server, "jobs")
    assert job["state"] in ("interrupted", "done")
    assert process.returncode == (0 if job["state"] == "done" else 1), errors
    assert ("--resume long" in errors) == (job["state"] == "interrupted")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_queued_runs_after_a_restart(server: Server, how: signal.Signals) -> None:
    (server.folder / "long.csv").write_text(minutes(400_000))
    process = begin(server, "load", "long.csv", "-i", "1m", "--batch", "long")
    until("the job runs", lambda: any(job["state"] == "running" for job in _jobs(server)))
    sent = httpx.post(f"{server.url}v1/jobs/load", params={"name": "days.csv"}, content=DAYS).json()
    assert sent["state"] == "queued"
    server.process.send_signal(how)
    server.process.wait(LIMIT_S)
    server.start()
    job = until("it is done", lambda: _over(server, sent["id"]))
    assert (job["state"], job["report"]["totals"]["inserted"]) == ("done", 28), job
    assert job["version"] > sent["version"]
    assert list((server.folder / "data" / "spool").iterdir()) == []
    process.communicate(timeout=LIMIT_S)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cancel", "SIGTERM", "SIGKILL"])
def test_an_upload_that_was_cut_short_goes_on_when_it_is_sent_again(server: Server, how: str) -> None:
    rows, batch = 600_000, "sent"
    long = minutes(rows)
    sent = _send(server, {"long.csv": long, "x/days.csv": DAYS}, batch=batch)
    until("some rows are stored", lambda: _stored(server))
    if how == "cancel":
        httpx.post(f"{server.url}v1/jobs/{sent['id']}/cancel")
        until("it is over", lambda: _over(server, sent["id"]))
    server.process.send_signal(signal.SIGTERM if how == "cancel" else signal.Signals[how])
    server.process.wait(LIMIT_S)
    server.start()
    assert list((server.folder / "data" / "spool").iterdir()) == []
    job = httpx.get(f"{server.url}v1/jobs/{sent['id']}").json()
    assert job["state"] == ("cancelled" if how == "cancel" else "interrupted")
    assert f'(over HTTP: with the option "resume": "{batch}")' in job["resume"]
    assert 0 < _stored(server) < rows
    again = _send(server, {"long.csv": long, "x/days.csv": DAYS}, resume=batch)
    ended = until("it is done", lambda: _over(server, again["id"]))
    assert ended["state"] == "done", ended
    totals = ended["report"]["totals"]
    counts = (ended["batch"], totals["read"], totals["inserted"], totals["unchanged"])
    assert counts == (batch, rows + 28, rows + 28, 0)
    assert _stored(server) == rows + 28
    assert [found["name"] for found in listed(server, "batches")] == [batch]
    assert list((server.folder / "data" / "spool").iterdir()) == []


def _send(server: Server, files: dict[str, str], **options: Any) -> dict[str, Any]:
    """An upload by the folder's socket, where a load can be told to commit often."""
    said = json.dumps(options | {"batch_rows": 20_000, "block_bytes": 1 << 20, "threads": 1})
    form = [("file", (name, text)) for name, text in files.items()]
    transport = httpx.HTTPTransport(uds=str(server.folder / "data" / "tapehouse.sock"))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=LIMIT_S) as client:
        answer = client.post("/v1/jobs/load", files=form, data={"options": said})
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()
    return job


def _stored(server: Server) -> int:
    found = httpx.get(f"{server.url}v1/symbols").json()["symbols"]
    return sum(series["rows"] for each in found for series in each["series"])


def _over(server: Server, id: str) -> dict[str, Any] | None:
    job: dict[str, Any] = httpx.get(f"{server.url}v1/jobs/{id}").json()
    return None if job["state"] in ("queued", "running") else job


def test_a_load_beside_a_load_goes_through_it(make_server: MakesServer) -> None:
    folder = make_server()
    (folder.folder / "days.csv").write_text(DAYS)
    (folder.folder / "long.csv").write_text(minutes(600_000))
    first = begin(folder, "load", "long.csv", "-i", "1m")
    until("somebody owns the folder", lambda: (folder.folder / "data" / "tapehouse.sock").exists() or first.poll())
    assert "28 inserted" in folder.run("load", "days.csv")
    out, errors = first.communicate(timeout=LIMIT_S)
    assert first.returncode == 0, errors
    assert "600,000 inserted" in out
    assert folder.run("symbols").split() == ["A", "L"]


def test_make_run_writes_into_no_other_server() -> None:
    recipe = (Path(__file__).parents[2] / "Makefile").read_text().partition("\nrun:")[2].partition("\n\n")[0]
    commands = [line for line in recipe.splitlines() if "/tapehouse " in line]
    assert len(commands) == 2
    assert all("env -u TAPEHOUSE_URL" in line and "2>" not in line for line in commands)
    assert "--if-empty" in commands[0]
    assert "TAPEHOUSE_URL" not in os.environ
