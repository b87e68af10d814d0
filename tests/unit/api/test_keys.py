"""The file of keys: what is in it, who may change it, and what a token may do."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
from pathlib import Path

import pytest

from tapehouse.api.keys import Bucket, Keys, Scope
from tapehouse.errors import Forbidden, InvalidSetting, NotFound, RateLimited, Unauthenticated


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def nanos(self) -> int:
        return int(self.seconds * 1e9)

    def ticks(self) -> float:
        return self.seconds

    def go_on(self) -> None:
        """Until a change of the file is in force."""
        self.seconds += 1.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(tmp_path: Path, clock: Clock) -> Keys:
    return Keys(tmp_path / "keys.json", clock=clock.nanos, ticks=clock.ticks)


def test_a_token_is_shown_once_and_kept_nowhere(keys: Keys) -> None:
    token = keys.add("chart")

    assert token.startswith("th_")
    assert len(token) == 3 + 43  # 256 bits as base64
    assert token[3:] not in keys.path.read_text()
    assert keys.check(token, Scope.READ).name == "chart"
    assert [(key.name, key.scope, key.rate_per_s) for key in keys] == [("chart", Scope.READ, None)]
    assert keys.add("other") != token


def test_the_file_is_for_its_owner_alone(keys: Keys) -> None:
    keys.add("a")
    assert keys.path.stat().st_mode & 0o777 == 0o600
    keys.add("b")
    assert keys.path.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in keys.path.parent.iterdir()) == ["keys.json", "keys.json.lock"]


@pytest.mark.parametrize(
    ("scope", "may"),
    [("read", ["read"]), ("write", ["read", "write"]), ("admin", ["read", "write", "admin"])],
)
def test_a_scope_includes_those_before_it(keys: Keys, scope: str, may: list[str]) -> None:
    token = keys.add("k", scope)

    for wanted in Scope:
        if wanted in may:
            assert keys.check(token, wanted).scope == scope
        else:
            with pytest.raises(Forbidden, match=f"may {scope}; this needs {wanted}"):
                keys.check(token, wanted)


@pytest.mark.parametrize("token", [None, "", "th_", "th_" + "A" * 43, "\udcff", "a" * 100_000])
def test_a_token_that_is_not_known(keys: Keys, token: str | None) -> None:
    keys.add("k")

    with pytest.raises(Unauthenticated):
        keys.check(token, Scope.READ)


def test_what_is_kept_is_not_a_token(keys: Keys) -> None:
    keys.add("k")
    (key,) = keys

    with pytest.raises(Unauthenticated, match="not known"):
        keys.check(key.hash, Scope.READ)


def test_a_key_expires(keys: Keys, clock: Clock) -> None:
    token = keys.add("k", expires=clock.nanos() + 10**9)

    assert keys.check(token, Scope.READ)
    clock.seconds += 1
    with pytest.raises(Unauthenticated, match="has expired"):
        keys.check(token, Scope.READ)


def test_a_rate_lets_through_so_many_a_second(keys: Keys, clock: Clock) -> None:
    token = keys.add("k", rate_per_s=2)

    for _ in range(2):
        keys.check(token, Scope.READ)
    with pytest.raises(RateLimited, match="2 requests a second") as caught:
        keys.check(token, Scope.READ)
    assert caught.value.details["retry_after_s"] == pytest.approx(0.5)
    clock.seconds += 0.5
    keys.check(token, Scope.READ)
    with pytest.raises(RateLimited):
        keys.check(token, Scope.READ)


def test_a_bucket_holds_no_more_than_a_second_s_worth() -> None:
    bucket = Bucket(0.5)

    assert bucket.take(1_000_000.0) == 0.0
    assert bucket.take(1_000_000.0) == 2.0
    assert bucket.take(1_000_001.0) == 1.0
    assert bucket.take(1_000_002.0) == 0.0


def test_remove(keys: Keys) -> None:
    token = keys.add("k")
    keys.remove("k")

    assert len(keys) == 0
    with pytest.raises(Unauthenticated):
        keys.check(token, Scope.READ)
    with pytest.raises(NotFound, match="no key 'k'; there are: none"):
        keys.remove("k")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": ""}, "1 to 64 printable"),
        ({"name": "x" * 65}, "1 to 64 printable"),
        ({"name": "a\nb"}, "1 to 64 printable"),
        ({"name": "k", "scope": "root"}, "no scope 'root'; there are read, write, admin"),
        ({"name": "k", "rate_per_s": 0.0}, "a rate is above 0"),
        ({"name": "k", "rate_per_s": float("nan")}, "a rate is above 0"),
        ({"name": "k", "expires": 5}, "expires in the future"),
        ({"name": "taken"}, "there is a key 'taken' already"),
    ],
)
def test_keys_that_cannot_be_made(keys: Keys, arguments: dict[str, object], message: str) -> None:
    keys.add("taken")

    with pytest.raises(InvalidSetting, match=message):
        keys.add(**arguments)  # type: ignore[arg-type]
    assert [key.name for key in keys] == ["taken"]


def test_another_process_s_change_is_seen(keys: Keys, clock: Clock, tmp_path: Path) -> None:
    other = Keys(tmp_path / "keys.json")

    token = other.add("k", "write")
    clock.go_on()
    assert keys.check(token, Scope.WRITE)
    other.remove("k")
    clock.go_on()
    with pytest.raises(Unauthenticated):
        keys.check(token, Scope.READ)


def test_a_file_that_becomes_unreadable_lets_nobody_in_and_nobody_out(
    keys: Keys, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    token = keys.add("k")
    assert keys.check(token, Scope.READ)
    keys.path.write_text("{")
    clock.go_on()

    with caplog.at_level(logging.ERROR):
        assert keys.check(token, Scope.READ)
    assert "as they were before" in caplog.text
    with pytest.raises(InvalidSetting, match="is not a file of keys"):
        keys.add("other")


def test_a_file_that_appears_and_cannot_be_read_does_not_leave_the_server_open(keys: Keys, clock: Clock) -> None:
    assert not keys.asked_for
    keys.path.write_text("{")
    clock.go_on()

    assert keys.asked_for
    with pytest.raises(Unauthenticated):
        keys.check("th_x", Scope.READ)
    keys.path.unlink()
    clock.go_on()
    assert not keys.asked_for


@pytest.mark.parametrize("content", ["", "[]", "{", '{"keys": [{"name": "x"}]}', '{"keys": [{"scope": "root"}]}'])
def test_a_file_that_is_not_one_of_keys_stops_the_start(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(content)

    with pytest.raises(InvalidSetting, match=r"keys\.json is not a file of keys"):
        Keys(path)


def test_a_write_that_fails_leaves_the_file_as_it_was(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    keys.add("k")
    before = keys.path.read_bytes()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        keys.add("other")
    assert keys.path.read_bytes() == before
    assert sorted(path.name for path in keys.path.parent.iterdir()) == ["keys.json", "keys.json.lock"]


def _add(path: Path, name: str) -> None:
    Keys(path).add(name)


def test_two_who_add_at_once_both_succeed(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    fork = multiprocessing.get_context("spawn")
    adders = [fork.Process(target=_add, args=(path, f"k{i}")) for i in range(3)]
    for adder in adders:
        adder.start()
    for adder in adders:
        adder.join()

    assert sorted(key["name"] for key in json.loads(path.read_text())["keys"]) == ["k0", "k1", "k2"]
