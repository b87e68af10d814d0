"""Who is let in: by Host, by Origin, by key; and what stops a server that would let everybody in."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.api.conftest import Connect
from tests.unit.api.parts import Client, refused

from tapehouse.api.keys import Keys, Scope
from tapehouse.api.security import check_exposure, is_loopback
from tapehouse.errors import InvalidSetting
from tapehouse.settings import Settings

DAILY = {"interval": "1d"}
EVERY_ROUTE = [
    ("GET", "/v1/bars?interval=1d", Scope.READ),
    ("GET", "/v1/trades", Scope.READ),
    ("GET", "/v1/quotes", Scope.READ),
    ("GET", "/v1/latest", Scope.READ),
    ("GET", "/v1/aggregate?bucket=1mo", Scope.READ),
    ("POST", "/v1/aggregate", Scope.READ),
    ("GET", "/v1/symbols", Scope.READ),
    ("GET", "/v1/coverage", Scope.READ),
    ("GET", "/v1/instruments", Scope.READ),
    ("GET", "/v1/commits", Scope.READ),
    ("GET", "/v1/stats", Scope.READ),
    ("GET", "/metrics", Scope.READ),
    ("POST", "/v1/bars?interval=1d", Scope.WRITE),
    ("POST", "/v1/trades", Scope.WRITE),
    ("POST", "/v1/quotes", Scope.WRITE),
    ("DELETE", "/v1/bars?interval=1d&symbols=A", Scope.WRITE),
    ("DELETE", "/v1/trades?symbols=A", Scope.WRITE),
    ("DELETE", "/v1/quotes?symbols=A", Scope.WRITE),
    ("PUT", "/v1/instruments", Scope.WRITE),
    ("POST", "/v1/ingest/bars?interval=1m", Scope.WRITE),
    ("POST", "/v1/ingest/trades", Scope.WRITE),
    ("POST", "/v1/ingest/quotes", Scope.WRITE),
    ("GET", "/v1/ingest/rejected", Scope.READ),
    ("GET", "/v1/sources", Scope.READ),
    ("GET", "/v1/log", Scope.READ),
    ("POST", "/v1/jobs/load", Scope.WRITE),
    ("GET", "/v1/jobs", Scope.WRITE),
    ("GET", "/v1/jobs/{id}", Scope.WRITE),
    ("GET", "/v1/jobs/{id}/events", Scope.WRITE),
    ("POST", "/v1/jobs/{id}/cancel", Scope.WRITE),
    ("GET", "/v1/batches", Scope.READ),
    ("POST", "/v1/batches/{name}/undo", Scope.WRITE),
    ("GET", "/v1/certificates", Scope.READ),
    ("GET", "/v1/certificates/{name}", Scope.READ),
    ("POST", "/v1/certificates/{name}/check", Scope.WRITE),
    ("GET", "/v1/quality", Scope.READ),
    ("POST", "/v1/quality/check", Scope.WRITE),
    ("POST", "/v1/compact", Scope.ADMIN),
    ("GET", "/healthz", None),
    ("GET", "/readyz", None),
    ("GET", "/openapi.json", None),
]


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys.json")


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8720", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:9999", "[::1]", "[::1]:8720"]
)
def test_loopback_s_names_are_ours(client: Client, host: str) -> None:
    assert client.get("/v1/bars", DAILY, host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example.com",
        "evil.example.com:8720",
        "localhost.evil.example.com",
        "127.0.0.1.evil.example.com",
        "127.0.0.2",
        "0.0.0.0",
        "[::1].evil.example.com",
        "",
        ":8720",
    ],
)
@pytest.mark.parametrize("path", ["/v1/bars?interval=1d", "/healthz", "/nothing"])
def test_any_other_name_is_a_page_s_trick(client: Client, host: str, path: str) -> None:
    refused(client.get(path, host=host), 403, "forbidden")


def test_names_can_be_allowed(connect: Connect) -> None:
    client = connect(allowed_hosts=("tape.example.com", "Other.example.com:80"))

    assert client.get("/healthz", host="tape.example.com").status_code == 200
    assert client.get("/healthz", host="TAPE.example.com:443").status_code == 200
    assert client.get("/healthz", host="other.example.com").status_code == 200
    assert client.get("/healthz", host="localhost").status_code == 200
    refused(client.get("/healthz", host="evil.example.com"), 403, "forbidden")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example.com",
        "null",
        "http://localhost:3000",
        "http://localhost",
        "file://",
        "http://127.0.0.1:8720",
    ],
)
def test_pages_from_elsewhere_may_not_call(client: Client, method: str, origin: str) -> None:
    assert client.request(method, "/v1/bars?interval=1d", headers={"origin": origin}).status_code == 403


def test_our_own_page_may(client: Client) -> None:
    assert client.get("/v1/bars", DAILY, origin="http://localhost:8720").status_code == 200
    assert client.get("/v1/bars", DAILY, origin="https://localhost:8720").status_code == 200  # behind a proxy with TLS


def test_origins_can_be_allowed(connect: Connect) -> None:
    client = connect(allowed_origins=("https://charts.example.com/",))
    origin = {"origin": "https://charts.example.com"}

    answer = client.get("/v1/bars", DAILY, **origin)
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization, content-type"}
    preflight = client.request("OPTIONS", "/v1/bars", headers=origin | asked)

    assert answer.headers["access-control-allow-origin"] == "https://charts.example.com"
    assert "Tapehouse-Next-Page" in answer.headers["access-control-expose-headers"]
    assert preflight.status_code == 200
    assert "POST" in preflight.headers["access-control-allow-methods"]
    refused(client.get("/v1/bars", DAILY, origin="https://other.example.com"), 403, "forbidden")


def test_the_unix_socket_is_for_its_owner_and_asks_nothing(connect: Connect, keys: Keys) -> None:
    keys.add("k")
    client = connect(over="socket", keys=keys)

    assert client.get("/v1/bars", DAILY, host="anything", origin="http://evil.example.com").status_code == 200
    assert client.request("DELETE", "/v1/bars?interval=1d&symbols=AAPL").status_code == 200


def test_nobody_can_claim_to_have_come_by_the_socket(connect: Connect, keys: Keys) -> None:
    keys.add("k")

    refused(connect(keys=keys).get("/v1/bars", DAILY, **{"tapehouse.trusted": "1"}), 401, "unauthenticated")


@pytest.mark.parametrize(("method", "path", "scope"), EVERY_ROUTE)
def test_every_route_asks_for_its_scope(
    connect: Connect, keys: Keys, method: str, path: str, scope: Scope | None
) -> None:
    tokens = {each: keys.add(each, each) for each in Scope}
    client = connect(keys=keys)

    bare = client.request(method, path)
    assert (bare.status_code == 401) == (scope is not None)
    if scope is None:
        return
    assert bare.headers["www-authenticate"] == "Bearer"
    refused(bare, 401, "unauthenticated")
    for held, token in tokens.items():
        status = client.request(method, path, headers={"authorization": f"Bearer {token}"}).status_code
        assert (status == 403) == (not held.includes(scope))
        assert status != 401


def test_no_route_was_forgotten(client: Client) -> None:
    documented = client.get("/openapi.json").json()["paths"]
    routes = {(method.upper(), path) for path, methods in documented.items() for method in methods}

    assert routes == {(m, p.partition("?")[0]) for m, p, _ in EVERY_ROUTE} - {("GET", "/openapi.json")}


def test_a_key_by_either_header(connect: Connect, keys: Keys) -> None:
    token = keys.add("k")
    client = connect(keys=keys)

    for headers in (
        {"authorization": f"Bearer {token}"},
        {"authorization": f"bearer  {token} "},
        {"x-api-key": token},
    ):
        assert client.get("/v1/bars", DAILY, **headers).status_code == 200
    for headers in ({"authorization": f"Basic {token}"}, {"authorization": token}, {"x-api-key": "th_no"}, {}):
        refused(client.get("/v1/bars", DAILY, **headers), 401, "unauthenticated")
    refused(client.get("/v1/bars", DAILY | {"key": token}), 401, "unauthenticated")


def test_a_key_that_is_made_later_is_asked_for_from_then_on(connect: Connect, keys: Keys) -> None:
    client = connect(keys=keys)
    assert client.get("/v1/bars", DAILY).status_code == 200

    token = keys.add("k")
    refused(client.get("/v1/bars", DAILY), 401, "unauthenticated")
    assert client.get("/v1/bars", DAILY, authorization=f"Bearer {token}").status_code == 200
    keys.remove("k")
    assert client.get("/v1/bars", DAILY).status_code == 200


def test_a_server_that_others_reach_stays_shut_when_its_last_key_goes(connect: Connect, keys: Keys) -> None:
    keys.add("k")
    client = connect(keys=keys, host="0.0.0.0")
    keys.remove("k")

    refused(client.get("/v1/bars", DAILY), 401, "unauthenticated")


def test_too_many_requests(connect: Connect, keys: Keys) -> None:
    token = keys.add("k", rate_per_s=0.25)
    client = connect(keys=keys, headers={"authorization": f"Bearer {token}"})

    assert client.get("/v1/bars", DAILY).status_code == 200
    answer = client.get("/v1/bars", DAILY)
    refused(answer, 429, "rate_limited")
    assert answer.headers["retry-after"] == "4"


def test_beyond_loopback_with_keys_any_name_will_do(connect: Connect, keys: Keys) -> None:
    token = keys.add("k")
    client = connect(keys=keys, host="0.0.0.0", headers={"authorization": f"Bearer {token}"})
    restricted = connect(keys=keys, host="0.0.0.0", allowed_hosts=("tape.example.com",))

    assert client.get("/v1/bars", DAILY, host="whatever.example.com").status_code == 200
    assert restricted.get("/healthz", host="tape.example.com").status_code == 200
    refused(restricted.get("/healthz", host="whatever.example.com"), 403, "forbidden")


def test_beyond_loopback_without_keys_a_name_could_be_a_trick(connect: Connect) -> None:
    client = connect(host="0.0.0.0", insecure=True)

    for host in ("192.0.2.7:8720", "192.0.2.7", "[2001:db8::1]:8720", "localhost"):
        assert client.get("/v1/bars", DAILY, host=host).status_code == 200
    refused(client.get("/v1/bars", DAILY, host="evil.example.com"), 403, "forbidden")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.7", False),
        ("tape.example.com", False),
    ],
)
def test_what_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_a_server_that_others_reach_needs_keys(keys: Keys) -> None:
    check_exposure(Settings(), None)
    check_exposure(Settings(host="0.0.0.0", insecure=True), None)
    for held in (None, keys):
        with pytest.raises(InvalidSetting, match=r"host is 0\.0\.0\.0, which others can reach, and there are no keys"):
            check_exposure(Settings(host="0.0.0.0"), held)
    keys.add("k")
    check_exposure(Settings(host="0.0.0.0"), keys)


@pytest.mark.parametrize(("host", "name"), [("127.0.0.2", "127.0.0.2:8720"), ("::1", "[::1]:8720")])
def test_the_address_it_listens_at_is_its_name(connect: Connect, host: str, name: str) -> None:
    assert connect(address=name, host=host).get("/healthz").status_code == 200
    refused(connect(address="127.0.0.3:8720", host=host).get("/healthz"), 403, "forbidden")
