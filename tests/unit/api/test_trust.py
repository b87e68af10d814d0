"""Batches that are undone, certificates that are checked, and quality, by HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.unit.api.parts import DAY_NS, JAN_2_NS, Client, bars, refused

from tapehouse.api.app import create_app
from tapehouse.bulk.base import LoadOptions
from tapehouse.bulk.certificate import certify
from tapehouse.bulk.checked import check_stored, load_checked
from tapehouse.bulk.checks.base import Checks, Validate
from tapehouse.bulk.recognise.known import sent_descriptions
from tapehouse.jobs.loads import LoadJobs
from tapehouse.jobs.runner import Runner
from tapehouse.jobs.spool import Spool
from tapehouse.model import Interval, Kind
from tapehouse.query.history import StoredHistory
from tapehouse.settings import Settings
from tapehouse.store.memory import MemoryStore

PATIENCE_S = 20.0
DAYS = "symbol,date,open,high,low,close,volume\n" + "".join(
    f"{symbol},2024-01-{day:02d},100,102,99,{100 + day % 3},1000\n" for symbol in ("A", "B") for day in range(1, 29)
)


@pytest.fixture
def store(tmp_path: Path) -> MemoryStore:
    """28 days of A and B, loaded as `days` and certified."""
    store = MemoryStore()
    (tmp_path / "days.csv").write_text(DAYS)
    options = LoadOptions(interval="1d", batch="days")
    checks = Checks(validate=Validate.FULL)
    report = load_checked([tmp_path / "days.csv"], store, options, checks, quarantine_dir=tmp_path / "quarantine")
    assert sum(report.grades.values()) == 2
    return store


@pytest.fixture
def runner(store: MemoryStore) -> Iterator[Runner]:
    runner = Runner(store)
    yield runner
    runner.stop()
    runner.close()


@pytest.fixture
def client(store: MemoryStore, runner: Runner, tmp_path: Path) -> Iterator[Client]:
    spool = Spool(tmp_path / "spool", upload_bytes=1_000, total_bytes=1_000)
    load: Any = None  # nothing is loaded here
    how: Any = {"assess": partial(check_stored, store), "read_formats": sent_descriptions}
    loads = LoadJobs(runner, load, partial(certify, store), spool, **how)
    api = create_app(StoredHistory(store), store, Settings(), loads=loads)
    client = Client(api.over_tcp, "localhost:8720")
    yield client
    client.close()
    api.close()


def over(runner: Runner, id: str) -> None:
    changed = threading.Event()
    runner.listen(id, changed.set)
    while not runner.job(id).state.is_over:
        assert changed.wait(PATIENCE_S)
        changed.clear()


def test_batches_are_listed_newest_first(client: Client, store: MemoryStore) -> None:
    store.write(Kind.BARS, bars("C", [1.0]), interval=Interval.D1, batch="more/of it")
    found = client.get("/v1/batches").json()["batches"]
    assert [batch["name"] for batch in found] == ["more/of it", "days"]
    assert (found[1]["inserted"], found[1]["series"], found[1]["undone_by"]) == (56, [["bars", "1d"]], None)
    assert found[1]["started"].endswith("Z")
    assert isinstance(client.get("/v1/batches", {"times": "ns"}).json()["batches"][0]["ended"], int)
    assert [b["name"] for b in client.get("/v1/batches", {"batch": "days,none"}).json()["batches"]] == ["days"]
    newest = found[0]["last_commit"]
    assert [b["name"] for b in client.get("/v1/batches", {"before": newest}).json()["batches"]] == ["days"]
    assert len(client.get("/v1/batches", {"limit": 1}).json()["batches"]) == 1
    refused(client.get("/v1/batches", {"limit": 0}), 400, "invalid_request", "limit")


def test_an_undo_says_what_it_left(client: Client, store: MemoryStore) -> None:
    later = store.write(Kind.BARS, bars("A", [9.0], JAN_2_NS + DAY_NS), interval=Interval.D1, batch="later/one")
    undone = client.post("/v1/batches/days/undo").json()
    assert (undone["removed"], undone["left"]) == (55, 1)
    assert undone["examples"] == [["bars", "1d", "A", "2024-01-03T00:00:00Z", later.number]]
    assert store.symbols() == ["A"]
    refused(client.post("/v1/batches/days/undo"), 409, "conflict")
    refused(client.post("/v1/batches/nothing/undo"), 404, "not_found")
    assert client.post("/v1/batches/later%2Fone/undo", {"times": "ns"}).json()["removed"] == 1
    assert store.symbols() == []
    undo = client.get("/v1/batches", {"batch": "days"}).json()["batches"][0]["undone_by"]
    assert client.post(f"/v1/batches/{undo}/undo").json()["restored"] >= 55


def test_certificates_are_shown_and_checked_again(client: Client, runner: Runner) -> None:
    (short,) = client.get("/v1/certificates").json()["certificates"]
    assert (short["batch"], short["series"], short["rows"], short["disagreeing"]) == ("days", 2, 56, 0)
    whole = client.get("/v1/certificates/days").json()
    assert [each["symbol"] for each in whole["series"]] == ["A", "B"]
    assert all(each["source"] == each["stored"] for each in whole["series"])
    assert whole["checked"].endswith("Z")
    id = client.post("/v1/certificates/days/check").json()["id"]
    over(runner, id)
    job = client.get(f"/v1/jobs/{id}").json()
    assert (job["kind"], job["state"], len(job["report"]["series"])) == ("certify", "done", 2)
    now = {"series": 2, "written": 56, "current": 56, "unchanged": 0, "undone_by": None, "found": []}
    assert job["report"]["standing"] == now


def test_a_batch_without_a_certificate(client: Client, runner: Runner) -> None:
    refused(client.get("/v1/certificates/nothing"), 404, "not_found")
    id = client.post("/v1/certificates/nothing/check").json()["id"]
    over(runner, id)
    job = client.get(f"/v1/jobs/{id}").json()
    assert (job["state"], job["error"]["code"]) == ("failed", "not_found")


def test_quality_of_each_series(client: Client) -> None:
    found = client.get("/v1/quality").json()["quality"]
    assert [(each["symbol"], each["kind"], each["interval"]) for each in found] == [
        ("A", "bars", "1d"),
        ("B", "bars", "1d"),
    ]
    assert all(each["grade"] in "ABCDF" and each["tally"]["inspected"] == 28 for each in found)
    assert found[0]["first"] == "2024-01-01T00:00:00Z"
    assert [each["symbol"] for each in client.get("/v1/quality", {"symbols": "B,C"}).json()["quality"]] == ["B"]
    short = client.get("/v1/quality", {"findings": "false"}).json()["quality"]
    assert [(each["grade"], each["findings"]) for each in short] == [(each["grade"], []) for each in found]
    assert client.get("/v1/quality", {"kind": "trades"}).json() == {"quality": []}
    assert client.get("/v1/quality", {"interval": "1m"}).json() == {"quality": []}


def test_quality_is_checked_anew(client: Client, runner: Runner, store: MemoryStore) -> None:
    store.delete(Kind.BARS, ["A"], interval=Interval.D1, end=JAN_2_NS)
    assert all(each["stale"] for each in client.get("/v1/quality").json()["quality"])
    asked = {"symbols": "A", "interval": "1d", "kind": "bars", "validate": "full"}
    job = client.post("/v1/quality/check", asked).json()
    assert (job["kind"], job["what"]) == ("quality", ["A"])
    over(runner, job["id"])
    done = client.get(f"/v1/jobs/{job['id']}").json()
    assert (done["state"], sum(done["report"]["grades"].values())) == ("done", 1)
    found = client.get("/v1/quality").json()["quality"]
    assert [(each["symbol"], each["tally"]["inspected"], each["stale"]) for each in found] == [
        ("A", 27, False),
        ("B", 28, True),
    ]


def test_a_check_of_quality_that_makes_no_sense(client: Client) -> None:
    refused(client.post("/v1/quality/check", {"validate": "off"}), 400, "invalid_request", "validate")
    refused(client.post("/v1/quality/check", {"interval": "7m"}), 400, "unknown_interval", "interval")
    refused(client.post("/v1/quality/check", {"findings": "true"}), 400, "invalid_request", "findings")


def test_a_store_that_keeps_nothing_says_so(store: MemoryStore) -> None:
    class Plain(MemoryStore):
        capabilities = frozenset()

    plain = Plain()
    api = create_app(StoredHistory(plain), plain, Settings())
    client = Client(api.over_tcp, "localhost:8720")
    for path in ("batches", "certificates", "certificates/x", "quality"):
        refused(client.get(f"/v1/{path}"), 501, "not_supported")
    for path in ("batches/x/undo", "certificates/x/check"):
        refused(client.post(f"/v1/{path}"), 501, "not_supported")
    client.close()
    api.close()
