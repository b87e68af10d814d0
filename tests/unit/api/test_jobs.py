"""Loads by HTTP: as paths, as a form, as a body; watched, cancelled, and refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.unit.api.parts import Client, refused

from tapehouse import bulk
from tapehouse.api.app import Api, create_app
from tapehouse.api.routes import jobs as routes
from tapehouse.bulk.base import LoadOptions, LoadReport
from tapehouse.bulk.certificate import certify
from tapehouse.bulk.checked import check_stored
from tapehouse.bulk.recognise.known import read_descriptions, sent_descriptions
from tapehouse.jobs.loads import LoadJobs
from tapehouse.jobs.runner import Runner
from tapehouse.jobs.spool import Spool
from tapehouse.model import Kind
from tapehouse.query.history import StoredHistory
from tapehouse.settings import Settings
from tapehouse.store.memory import MemoryStore

PATIENCE_S = 20.0
HEADER = "symbol,date,open,high,low,close,volume\n"
ROWS = HEADER + "A,2024-01-02,1,2,0.5,1.5,10\nA,2024-01-03,1,2,0.5,1.5,10\n"
DAILY = {"interval": "1d"}
LAYOUT = {"name": "X", "kind": "bars", "header": ["Tag", "Kurs"], "columns": {"date": "Tag"}}


class Here:
    """A server's parts around a store in memory; loads wait at the gate while it is shut."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.store = MemoryStore()
        self.gate = threading.Event()
        self.gate.set()
        self.asked: list[tuple[LoadOptions, str]] = []
        self.folder, self.spool = folder, folder / "spool"
        chosen = Settings(**settings)
        limits = {"upload_bytes": chosen.max_upload_bytes, "total_bytes": chosen.max_spool_bytes}
        self.runner = Runner(self.store, running=1, waiting=chosen.max_waiting_jobs)
        loads = LoadJobs(
            self.runner,
            self._load,
            partial(certify, self.store),
            Spool(self.spool, **limits),
            chosen.load_folders,
            assess=partial(check_stored, self.store),
            read_formats=sent_descriptions,
        )
        self.api: Api = create_app(StoredHistory(self.store), self.store, chosen, loads=loads)
        self._clients = contextlib.ExitStack()
        self.client, self.socket = self._client(self.api.over_tcp), self._client(self.api.over_socket)

    def _client(self, app: Any) -> Client:
        client = Client(app, "localhost:8720")
        self._clients.callback(client.close)
        return client

    def _load(self, paths: Sequence[str], options: LoadOptions, *, validate: str, **how: Any) -> LoadReport:
        self.asked.append((options, validate))
        assert self.gate.wait(PATIENCE_S)
        return bulk.load(paths, self.store, options, quarantine_dir=self.folder / "quarantine", **how)

    def over(self, id: str) -> dict[str, Any]:
        """The job once it is over."""
        changed = threading.Event()
        self.runner.listen(id, changed.set)
        while not self.runner.job(id).state.is_over:
            assert changed.wait(PATIENCE_S)
            changed.clear()
        found: dict[str, Any] = self.client.get(f"/v1/jobs/{id}").json()
        return found

    def rows(self) -> int:
        return sum(series.rows for series in self.store.coverage(Kind.BARS))

    def close(self) -> None:
        self.gate.set()
        self.runner.stop()
        self.runner.close()
        self._clients.close()
        self.api.close()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    found = Here(tmp_path, load_folders=(str(tmp_path / "allowed"),))
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "days.csv").write_text(ROWS)
    yield found
    found.close()


@pytest.fixture
def client(here: Here) -> Client:
    return here.client


def form(*files: tuple[str, str], **fields: Any) -> dict[str, Any]:
    return {"files": [("file", each) for each in files], "data": {k: json.dumps(v) for k, v in fields.items()}}


def test_paths_that_are_allowed(here: Here, client: Client) -> None:
    path = str(here.folder / "allowed")
    answer = client.post("/v1/jobs/load", json={"paths": [path], "options": {**DAILY, "validate": "full"}})
    assert answer.status_code == 200, answer.text
    job = here.over(answer.json()["id"])
    assert (job["state"], job["report"]["totals"]["inserted"], job["what"]) == ("done", 2, [path])
    assert job["created"].endswith("Z")
    assert [validate for _, validate in here.asked] == ["full"]
    assert isinstance(client.get(f"/v1/jobs/{job['id']}", {"times": "ns"}).json()["ended"], int)


def test_paths_that_are_not(here: Here, client: Client) -> None:
    (here.folder / "secret.csv").write_text(ROWS)
    secret = {"paths": [str(here.folder / "secret.csv")], "options": DAILY}
    problem = refused(client.post("/v1/jobs/load", json=secret), 403, "forbidden", "paths")
    assert "out of the folders that may be loaded from" in problem["detail"]
    assert client.get("/v1/jobs").json() == {"jobs": []}
    job = here.over(here.socket.post("/v1/jobs/load", json=secret).json()["id"])
    assert job["state"] == "done"


def test_a_form_with_files(here: Here, client: Client) -> None:
    files = form(("a.csv", ROWS), ("B/é.csv", ROWS.replace("A,", "B,")), options=DAILY)
    job = here.over(client.post("/v1/jobs/load", **files).json()["id"])
    assert job["state"] == "done", job
    assert job["what"] == ["a.csv", "B/é.csv"]
    assert sorted(file["file"]["path"] for file in job["report"]["files"]) == ["B/é.csv", "a.csv"]
    assert here.rows() == 4
    assert list(here.spool.iterdir()) == []


def test_a_body_that_is_a_file(here: Here, client: Client) -> None:
    large = HEADER + "".join(f"S{n},2024-01-02,1,2,0.5,1.5,10\n" for n in range(60_000))
    answer = client.post("/v1/jobs/load", {"name": "many.csv", "options": json.dumps(DAILY)}, content=large.encode())
    job = here.over(answer.json()["id"])
    assert job["state"] == "done", job
    assert here.rows() == 60_000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"intervall": "1d"}, "there is no option 'intervall'"),
        ({"threads": 64}, "there is no option 'threads'"),
        ({"interval": "7m"}, "'7m'"),
        ({"max_bad_share": 2}, "between 0 and 1"),
        ({"symbol": 5}, "symbol"),
        ({"validate": "some"}, "some"),
        ({"formats": {}}, "options: formats is a list of objects"),
        ({"formats": [5]}, "options: formats is a list of objects"),
        (
            {"formats": [LAYOUT | {"colour": "red"}]},
            "options: [[formats]] number 1 (X): Object contains unknown field `colour`",
        ),
        (
            {"formats": [LAYOUT, LAYOUT | {"file": "("}]},
            "options: [[formats]] number 2 (X): file '(' is no regular expression",
        ),
        ({"formats": [LAYOUT | {"file": "a{99999999999999999999}"}]}, "is no regular expression"),
        ({"formats": [LAYOUT | {"timezone": "Mars/Olympus"}]}, "number 1 (X): unknown time zone 'Mars/Olympus'"),
        ({"formats": [LAYOUT | {"columns": {"bid": "1"}}]}, "number 1 (X): bars have no field 'bid'"),
        ([], "object"),
    ],
)
def test_options_that_are_wrong(here: Here, client: Client, options: Any, words: str) -> None:
    for sent in (
        {"json": {"paths": ["x"], "options": options}},
        form(("a.csv", ROWS), options=options),
        {"params": {"name": "a.csv", "options": json.dumps(options)}, "content": b"x"},
    ):
        answer = client.post("/v1/jobs/load", **sent)
        assert answer.status_code == 400, answer.text
        assert words in answer.json()["detail"]
    _removed(here)
    assert here.asked == []


def test_layouts_are_taken_as_those_of_a_settings_file(here: Here, client: Client) -> None:
    sent = LAYOUT | {"values": {"symbol": {"ApPlE": "AAPL"}}}
    body = {"paths": [str(here.folder / "allowed")], "options": {**DAILY, "formats": [sent]}}
    here.over(client.post("/v1/jobs/load", json=body).json()["id"])
    assert here.asked[0][0].formats == read_descriptions([sent], "mine.toml")


def _removed(here: Here) -> None:
    """Nothing is left of uploads, once the threads that remove them have had their turn."""
    here.api.context.workers.closing.submit(lambda: None).result(PATIENCE_S)
    assert not here.spool.exists() or list(here.spool.iterdir()) == []


def test_the_socket_says_how_the_server_goes_about_it(here: Here) -> None:
    body = {"paths": [str(here.folder / "allowed")], "options": {**DAILY, "threads": 1}}
    assert here.over(here.socket.post("/v1/jobs/load", json=body).json()["id"])["state"] == "done"
    assert here.asked[0][0].threads == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"paths": "a"}', b'{"paths": [1]}', b'{"paths": []}', b'{"path": ["a"]}', b'{"paths": [""]}'],
)
def test_json_that_names_no_paths(client: Client, body: bytes) -> None:
    answer = client.post("/v1/jobs/load", content=body, headers={"content-type": "application/json"})
    refused(answer, 400, "invalid_request")


@pytest.mark.parametrize("kind", ["", "text/csv", "application/x-www-form-urlencoded"])
def test_bodies_of_other_types_need_a_name(client: Client, kind: str) -> None:
    answer = client.post("/v1/jobs/load", content=b"x", headers={"content-type": kind})
    refused(answer, 415, "unsupported_media_type", "Content-Type")


FORM = "multipart/form-data; boundary=b"
PART = b'--b\r\ncontent-disposition: form-data; name="file"; filename="%s"\r\n\r\n'


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--b--"),
        (f"multipart/form-data; boundary={'b' * 300}", b""),
        (FORM, b""),
        (FORM, b"--b--\r\n"),
        (FORM, b"rubbish"),
        (FORM, PART % b"a.csv" + b"rows"),
        (FORM, PART % b"../../a.csv" + b"rows\r\n--b--\r\n"),
        (FORM, PART % b"" + b"rows\r\n--b--\r\n"),
        (FORM, PART % b"a" + b"rows\r\n" + PART % b"a" + b"rows\r\n--b--\r\n"),
        (FORM, b'--b\r\ncontent-disposition: form-data; name="other"\r\n\r\nx\r\n--b--\r\n'),
        (FORM, b"--b\r\n\r\nx\r\n--b--\r\n"),
        (FORM, b"--b\r\nx: " + b"y" * 100_000),
        (FORM, b'--b\r\ncontent-disposition: form-data; name="options"\r\n\r\n' + b" " * 100_000 + b"\r\n--b--\r\n"),
    ],
)
def test_forms_that_are_none(here: Here, client: Client, kind: str, body: bytes) -> None:
    answer = client.post("/v1/jobs/load", content=body, headers={"content-type": kind})
    assert answer.status_code in (400, 413), answer.text
    _removed(here)
    assert here.asked == []


def test_uploads_have_limits(tmp_path: Path) -> None:
    here = Here(tmp_path, max_upload_bytes=1_000, max_spool_bytes=1_500)
    here.gate.clear()
    try:
        refused(here.client.post("/v1/jobs/load", **form(("a.csv", "x" * 1_001))), 413, "limit_exceeded")
        first = here.client.post("/v1/jobs/load", **form(("a.csv", "x" * 1_000)))
        assert first.status_code == 200
        problem = refused(here.client.post("/v1/jobs/load", **form(("b.csv", "x" * 600))), 413, "limit_exceeded")
        assert "max_spool_bytes" in problem["detail"]
        here.gate.set()
        here.over(first.json()["id"])
        second = here.client.post("/v1/jobs/load", **form(("b.csv", "x" * 600)))
        assert second.status_code == 200
        here.over(second.json()["id"])  # one that waits when the server stops keeps its upload
    finally:
        here.close()
    assert list(here.spool.iterdir()) == []


def test_too_many_that_wait(tmp_path: Path) -> None:
    here = Here(tmp_path, max_waiting_jobs=1)
    here.gate.clear()
    try:
        running = here.client.post("/v1/jobs/load", **form(("a.csv", ROWS))).json()["id"]
        changed = threading.Event()
        here.runner.listen(running, changed.set)
        while here.runner.job(running).state != "running":
            assert changed.wait(PATIENCE_S)
        assert here.client.post("/v1/jobs/load", **form(("a.csv", ROWS))).status_code == 200
        answer = here.client.post("/v1/jobs/load", **form(("a.csv", ROWS)))
        refused(answer, 503, "overloaded")
        assert answer.headers["retry-after"] == "10"
        assert len(list(here.spool.iterdir())) == 2
    finally:
        here.close()


def test_no_such_job(client: Client) -> None:
    refused(client.get("/v1/jobs/nothing"), 404, "not_found")
    refused(client.get("/v1/jobs/nothing/events"), 404, "not_found")
    refused(client.post("/v1/jobs/nothing/cancel"), 404, "not_found")


def test_a_server_without_jobs_says_so() -> None:
    store = MemoryStore()
    api = create_app(StoredHistory(store), store, Settings())
    client = Client(api.over_tcp, "localhost:8720")
    refused(client.get("/v1/jobs"), 501, "not_supported")
    client.close()
    api.close()


def test_the_list_is_newest_first_and_without_reports(here: Here, client: Client) -> None:
    for name in ("a.csv", "b.csv", "c.csv"):
        here.over(client.post("/v1/jobs/load", **form((name, ROWS), options=DAILY)).json()["id"])
    found = client.get("/v1/jobs", {"limit": 2}).json()["jobs"]
    assert [(job["what"], job["report"]) for job in found] == [(["c.csv"], None), (["b.csv"], None)]


def test_a_job_that_waits_is_cancelled(here: Here, client: Client) -> None:
    here.gate.clear()
    running = client.post("/v1/jobs/load", **form(("a.csv", ROWS), options=DAILY)).json()["id"]
    waiting = client.post("/v1/jobs/load", **form(("b.csv", ROWS), options=DAILY)).json()["id"]
    cancelled = client.post(f"/v1/jobs/{waiting}/cancel").json()
    assert cancelled["state"] == "cancelled"
    assert client.post(f"/v1/jobs/{running}/cancel").json()["state"] in ("queued", "running", "cancelled")
    here.gate.set()
    job = here.over(running)
    assert job["state"] == "cancelled"
    assert job["report"]["interrupted"]
    assert f"--resume {job['batch']}" in job["resume"]


def events(text: str) -> list[dict[str, Any]]:
    """The jobs of a stream of events; each event's id is the version of its job."""
    found = []
    for event in text.split("\n\n"):
        if event and not event.startswith(":"):
            id_, data = event.split("\n")
            found.append(json.loads(data.removeprefix("data: ")))
            assert id_ == f"id: {found[-1]['version']}"
    return found


def test_events_end_with_the_final_state(here: Here, client: Client) -> None:
    id = client.post("/v1/jobs/load", **form(("a.csv", ROWS), options=DAILY)).json()["id"]
    answer = client.get(f"/v1/jobs/{id}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    seen = events(answer.text)
    assert seen[-1]["state"] == "done"
    assert seen[-1]["report"]["totals"]["inserted"] == 2
    assert [each["version"] for each in seen] == sorted({each["version"] for each in seen})
    again = client.get(f"/v1/jobs/{id}/events", **{"last-event-id": str(seen[-1]["version"])})
    assert (again.status_code, again.content) == (204, b"")
    assert events(client.get(f"/v1/jobs/{id}/events", **{"last-event-id": "1"}).text) == seen[-1:]
    assert here.api.context.open_events.taken == 0


class Watching:
    """A watcher of a job, as an ASGI server runs one: takes what is sent, and may go away."""

    def __init__(self, api: Api, id: str, **headers: str) -> None:
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.gone = asyncio.Event()
        self._scope = {
            "type": "http",
            "method": "GET",
            "path": f"/v1/jobs/{id}/events",
            "raw_path": f"/v1/jobs/{id}/events".encode(),
            "query_string": b"",
            "http_version": "1.1",
            "scheme": "http",
            "headers": [(b"host", b"localhost:8720"), *((k.encode(), v.encode()) for k, v in headers.items())],
            "server": ("localhost", 8720),
            "client": None,
            "root_path": "",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
        }
        self.task = asyncio.create_task(api.over_tcp(self._scope, self._receive, self.sent.put))

    async def _receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def body(self) -> str:
        """The next piece of the body that is not empty."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                message = await self.sent.get()
                if message.get("body"):
                    return bytes(message["body"]).decode()


def test_a_watcher_is_sent_signs_of_life_and_may_go_away(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "HEARTBEAT_S", 0.02)
    here.gate.clear()
    id = here.client.post("/v1/jobs/load", **form(("a.csv", ROWS), options=DAILY)).json()["id"]

    async def watch() -> None:
        watcher, other = Watching(here.api, id), Watching(here.api, id)
        while (first := await watcher.body()).startswith(":") or events(first)[0]["state"] == "queued":
            pass
        assert events(first)[0]["state"] == "running"
        assert await watcher.body() == ": nothing new\n\n"
        assert here.api.context.open_events.taken == 2
        watcher.gone.set()
        await asyncio.wait_for(watcher.task, PATIENCE_S)
        assert here.api.context.open_events.taken == 1
        here.gate.set()
        while (piece := await other.body()).startswith(":") or events(piece)[-1]["state"] != "done":
            pass
        await asyncio.wait_for(other.task, PATIENCE_S)

    asyncio.run(watch())
    assert here.api.context.open_events.taken == 0


def test_too_many_watchers(tmp_path: Path) -> None:
    here = Here(tmp_path, max_job_watchers=1)
    here.gate.clear()
    id = here.client.post("/v1/jobs/load", **form(("a.csv", ROWS), options=DAILY)).json()["id"]

    async def watch() -> None:
        watcher = Watching(here.api, id)
        await watcher.body()
        transport = httpx.ASGITransport(here.api.over_tcp)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8720") as other:
            refused(await other.get(f"/v1/jobs/{id}/events"), 503, "overloaded")
        watcher.gone.set()
        await watcher.task

    try:
        asyncio.run(watch())
    finally:
        here.close()


def test_an_upload_that_is_cut_off_leaves_nothing(here: Here) -> None:
    async def send() -> None:
        messages = iter(
            [
                {"type": "http.request", "body": PART % b"a.csv" + b"x" * 3_000_000, "more_body": True},
                {"type": "http.disconnect"},
            ]
        )

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            pass

        scope = Watching(here.api, "x")._scope | {
            "method": "POST",
            "path": "/v1/jobs/load",
            "headers": [(b"host", b"localhost:8720"), (b"content-type", FORM.encode())],
        }
        await here.api.over_tcp(scope, receive, send)

    asyncio.run(send())
    _removed(here)
    assert here.asked == []
    assert here.api.context.open_bodies.taken == 0
