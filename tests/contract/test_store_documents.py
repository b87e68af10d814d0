"""Small documents beside the data: kept by collection and key, all of a call or none, there when opened again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.contract.stores import BACKENDS, T0, Home, bar, write


def test_they_are_kept_by_collection_and_key(store: Any) -> None:
    store.put_documents("loads", {"b": b"\x00\xff", "a": b"", "é 'x'": b"1"})
    store.put_documents("certificates", {"a": b"other"})
    assert list(store.documents("loads").items()) == [("a", b""), ("b", b"\x00\xff"), ("é 'x'", b"1")]
    assert store.documents("certificates") == {"a": b"other"}
    assert store.documents("nothing") == {}


def test_those_of_some_keys(store: Any) -> None:
    store.put_documents("loads", {key: key.encode() for key in "cab"})
    assert list(store.documents("loads", ["c", "nobody", "a", "c"]).items()) == [("a", b"a"), ("c", b"c")]
    assert store.documents("loads", []) == {}


def test_a_document_replaces_the_one_of_its_key_and_none_removes_it(store: Any) -> None:
    store.put_documents("loads", {"a": b"1", "b": b"1", "c": b"1"})
    store.put_documents("loads", {"a": b"2", "b": None, "nobody": None})
    assert store.documents("loads") == {"a": b"2", "c": b"1"}
    store.put_documents("loads", {})
    assert store.documents("loads") == {"a": b"2", "c": b"1"}


def test_they_are_no_commits(store: Any) -> None:
    write(store, bar("A", T0, 1))
    store.put_documents("loads", {"a": b"1"})
    assert store.head() == 1
    assert write(store, bar("A", T0, 2)).number == 2


def test_many_and_large_ones(store: Any) -> None:
    documents = {f"{number:05}": bytes([number % 256]) * number for number in range(2_000)}
    store.put_documents("loads", documents)
    assert store.documents("loads") == documents


@pytest.mark.parametrize("name", [name for name, backend in BACKENDS.items() if backend.persists])
def test_they_are_there_when_opened_again(name: str, tmp_path: Path) -> None:
    home = Home(BACKENDS[name], tmp_path / "data")
    home.store.put_documents("loads", {"a": b"1", "b": b"2"})
    home.store.put_documents("loads", {"a": None, "b": b"3"})
    assert home.reopen().documents("loads") == {"b": b"3"}
    home.close()
