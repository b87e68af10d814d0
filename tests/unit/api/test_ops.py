"""For those who run it: health, metrics, compaction, the page, and docs that say what there is."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.api.conftest import Connect
from tests.unit.api.parts import Client, refused

from tapehouse import dashboard, errors
from tapehouse.api import problems
from tapehouse.api.app import Page
from tapehouse.api.keys import Keys
from tapehouse.codec import MEDIA_TYPES
from tapehouse.errors import StoreDamaged, StoreFull
from tapehouse.store.base import CompactionReport
from tapehouse.store.memory import MemoryStore

DAILY = {"interval": "1d"}
REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


class Failing:
    """A store of which one method fails."""

    def __init__(self, store: MemoryStore, method: str, error: Exception) -> None:
        self._store = store
        self._method = method
        self._error = error

    def __getattr__(self, name: str) -> Any:
        if name == self._method:
            return self._fail
        return getattr(self._store, name)

    def _fail(self, *args: Any, **options: Any) -> Any:
        raise self._error


class Compacting:
    """A store that compacts."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.asked: list[bool] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return found | {"compacts"} if name == "capabilities" else found

    def compact(self, *, everything: bool = False) -> CompactionReport:
        self.asked.append(everything)
        return CompactionReport(rows=7, spans=1, files_written=1, bytes=100, seconds=0.25)


def samples(client: Client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = client.get("/metrics").text
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_alive_and_ready(client: Client) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_not_ready_when_the_store_does_not_answer(connect: Connect, store: MemoryStore) -> None:
    client = connect(of=Failing(store, "stats", StoreDamaged("a page is torn")))

    answer = client.get("/readyz")

    assert "a page is torn" in refused(answer, 503, "unavailable")["detail"]
    assert answer.headers["retry-after"] == "5"
    assert client.get("/healthz").status_code == 200


def test_stats(client: Client) -> None:
    found = client.get("/v1/stats").json()

    assert found["store"]["symbols"] == 2
    assert found["uptime_s"] >= 0
    assert re.fullmatch(r"\d+\.\d+\.\d+", found["version"])


def test_compact(connect: Connect, store: MemoryStore) -> None:
    compacting = Compacting(store)
    client = connect(of=compacting)

    report = client.post("/v1/compact").json()
    client.post("/v1/compact", {"everything": "true"})

    assert report == {
        "rows": 7,
        "spans": 1,
        "files_written": 1,
        "files_replaced": 0,
        "bytes": 100,
        "seconds": 0.25,
    }
    assert compacting.asked == [False, True]
    refused(client.post("/v1/compact", {"everything": "maybe"}), 400, "invalid_request", "everything")
    found = samples(client)
    assert found["tapehouse_compactions_total", (("outcome", "done"),)] == 2
    assert found["tapehouse_compacted_rows_total", ()] == 14


def test_a_store_that_does_not_compact(client: Client) -> None:
    refused(client.post("/v1/compact"), 501, "not_supported")


def test_metrics(client: Client) -> None:
    client.get("/v1/bars", DAILY)
    client.get("/v1/bars", {"interval": "7m"})
    client.get("/nothing/at/all")

    found = samples(client)

    requests = "tapehouse_http_requests_total"
    assert found[requests, (("method", "GET"), ("route", "/v1/bars"), ("status", "200"))] == 1
    assert found[requests, (("method", "GET"), ("route", "/v1/bars"), ("status", "400"))] == 1
    assert found[requests, (("method", "GET"), ("route", "none"), ("status", "404"))] == 1
    assert found["tapehouse_http_seconds_count", (("route", "/v1/bars"),)] == 2
    assert found["tapehouse_rows_served_total", ()] == 5
    assert found["tapehouse_store_symbols", ()] == 2
    assert found["tapehouse_open_answers", ()] == 0
    assert "process_resident_memory_bytes" in {name for name, _ in found}


def test_written_rows_are_counted_by_what_became_of_them(client: Client) -> None:
    answer = client.get("/v1/bars", DAILY | {"symbols": "AAPL", "columns": "all"})
    client.post("/v1/bars", DAILY, content=answer.content, headers={"content-type": "application/json"})

    assert samples(client)["tapehouse_rows_written_total", (("outcome", "unchanged"),)] == 3


def test_what_nobody_foresaw_is_logged_and_not_shown(
    connect: Connect, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(of=Failing(store, "coverage", ZeroDivisionError("secret insides")))

    with caplog.at_level(logging.ERROR):
        answer = client.get("/v1/symbols")

    problem = refused(answer, 500, "internal")
    assert "secret" not in answer.text
    (record,) = [record for record in caplog.records if record.name.startswith("tapehouse")]
    assert problem["request_id"] in record.getMessage()
    assert record.exc_info


def test_a_store_s_error_is_said_and_logged(
    connect: Connect, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(of=Failing(store, "write", StoreFull("no space left for data")))

    with caplog.at_level(logging.ERROR):
        answer = client.post("/v1/bars", DAILY, json=[])

    assert refused(answer, 507, "store_full")["detail"] == "no space left for data"
    assert "no space left" in caplog.text


def test_the_page_is_served_under_its_policy(connect: Connect) -> None:
    client = connect(page=Page(dashboard.STATIC, dashboard.CONTENT_SECURITY_POLICY))

    page = client.get("/")
    script = client.get("/static/app.js")

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text == (dashboard.STATIC / "index.html").read_text("utf-8")
    for answer in (page, script):
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"] == dashboard.CONTENT_SECURITY_POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-cache"
        assert client.get("/static/app.js", **{"if-none-match": script.headers["etag"]}).status_code == 304
    assert "javascript" in script.headers["content-type"]


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/healthz", "/readyz", "/openapi.json"])
def test_the_head_of_what_needs_no_key(connect: Connect, path: str) -> None:
    client = connect(page=Page(dashboard.STATIC, dashboard.CONTENT_SECURITY_POLICY))

    whole, head = client.get(path), client.request("HEAD", path)

    assert head.status_code == 200
    own = {"x-request-id", "date"}
    assert {k: v for k, v in head.headers.items() if k not in own} == {
        k: v for k, v in whole.headers.items() if k not in own
    }


def test_head_is_answered_where_get_is_and_needs_the_same_key(connect: Connect, tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    headers = {"Authorization": f"Bearer {keys.add('reader')}"}
    client, stranger = connect(keys=keys, headers=headers), connect(keys=keys)
    needed = {"interval": "1d", "bucket": "1d"}
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        if "get" not in methods or "{" in path:
            continue
        taken = {each["name"] for each in methods["get"].get("parameters", [])}
        params = {name: value for name, value in needed.items() if name in taken}
        whole, head = client.get(path, params), client.request("HEAD", path, params=params)
        assert head.status_code == whole.status_code, path
        assert head.headers["content-type"] == whole.headers["content-type"]
        if "get" in methods and methods["get"]["responses"].get("401"):
            assert stranger.request("HEAD", path, params=params).status_code == 401, path


@pytest.mark.parametrize("path", ["/static/nothing.js", "/static/../app.py", "/static/%2e%2e/__init__.py", "/static/"])
def test_nothing_else_is_served(connect: Connect, path: str) -> None:
    client = connect(page=Page(dashboard.STATIC, dashboard.CONTENT_SECURITY_POLICY))

    refused(client.get(path), 404, "no_such_route")


def test_openapi_has_every_answer_to_a_put_of_instruments(client: Client) -> None:
    methods = client.get("/openapi.json").json()["paths"]["/v1/instruments"]

    assert {"200", "400", "401", "403", "408", "413", "415", "422", "501"} <= methods["put"]["responses"].keys()
    assert "422" not in methods["get"]["responses"]


def test_openapi_has_examples_and_problems(client: Client) -> None:
    schema = client.get("/openapi.json").json()

    assert set(schema["components"]["securitySchemes"]) == {"bearer", "header"}
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert operation["description"], where
            good = operation["responses"]["200"]["content"]
            assert path == "/metrics" or any("example" in each or "examples" in each for each in good.values()), where
            assert any(int(status) >= 400 for status in operation["responses"]) or path == "/healthz", where
            in_path = {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
            assert in_path == set(re.findall(r"{(\w+)}", path)), where
    body = schema["paths"]["/v1/bars"]["post"]["requestBody"]["content"]
    assert set(body) == set(MEDIA_TYPES)
    assert body["application/json"]["example"]["columns"]["symbol"]


def documented_parameters(method: str, path: str) -> set[str]:
    """What docs/reference/http.md says a route takes."""
    rows = [line for line in (REFERENCE / "http.md").read_text("utf-8").splitlines() if line.startswith("| `")]
    row = next(line for line in rows if f"`{method} {path}`" in line.split("|")[1])
    names = set(re.findall(r"`(\w+)`", row.split("|")[3]))
    if "the same without" in row:
        return documented_parameters(method, "/v1/bars") - names
    return names


def test_the_reference_has_every_route_and_its_parameters(client: Client) -> None:
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method, operation in methods.items():
            taken = {each["name"] for each in operation.get("parameters", []) if each["in"] == "query"}
            assert documented_parameters(method.upper(), path) == taken, f"{method} {path}"


def test_the_reference_explains_every_parameter(client: Client) -> None:
    text = (REFERENCE / "http.md").read_text("utf-8").partition("## Parameters")[2].partition("## Rows")[0]
    explained = {
        name for row in text.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row else "")
    }
    paths = client.get("/openapi.json").json()["paths"].values()
    operations = [operation for methods in paths for operation in methods.values()]
    taken = {each["name"] for of in operations for each in of.get("parameters", []) if each["in"] == "query"}

    assert explained == taken


def test_every_code_is_documented() -> None:
    def tree(kind: type[errors.TapehouseError]) -> set[str]:
        return {kind.code}.union(*map(tree, kind.__subclasses__()))

    page = (REFERENCE / "errors.md").read_text("utf-8")
    codes = tree(errors.TapehouseError) | set(problems.HTTP_CODES.values())
    assert set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE)) == codes
