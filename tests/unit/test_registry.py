"""URLs and the backends that they name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tapehouse.errors import InvalidSetting, MissingExtra
from tapehouse.registry import STORES, Backend, load, open_backend, open_store
from tapehouse.store.memory import MemoryStore


class Folder:
    """A backend that only remembers where it is."""

    def __init__(self, path: Path) -> None:
        self.path = path


FOLDERS = {"duckdb": STORES["duckdb"]._replace(target=f"{__name__}:Folder")}


def test_memory_opens_a_new_store_each_time() -> None:
    first, second = open_store("memory://"), open_store("memory://")
    assert isinstance(first, MemoryStore)
    assert first is not second


@pytest.mark.parametrize("scheme", STORES)
def test_every_store_in_the_table_is_there(scheme: str) -> None:
    assert {"write", "read", "capabilities"} <= set(dir(load(STORES[scheme])))


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("duckdb:///data", "data"),
        ("duckdb:///a/b c%20?#", "a/b c%20?#"),
        ("duckdb:////var/lib/tapehouse", "/var/lib/tapehouse"),
    ],
)
def test_three_slashes_are_relative_and_four_absolute(url: str, path: str) -> None:
    assert open_backend("store", FOLDERS, url).path == Path(path)


@pytest.mark.parametrize("url", ["duckdb://", "duckdb:///", "duckdb://data", "duckdb:///a\0b"])
def test_a_folder_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidSetting, match="three slashes"):
        open_store(url)


def test_memory_takes_nothing_more() -> None:
    with pytest.raises(InvalidSetting, match="nothing follows"):
        open_store("memory://shared")


@pytest.mark.parametrize("url", ["timescale://user:secret@db/market", "DuckDB:///data", "://x"])
def test_an_unknown_scheme_is_answered_with_those_there_are(url: str) -> None:
    with pytest.raises(InvalidSetting, match=r"there are duckdb://, memory://") as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "data/", "duckdb:data"])
def test_what_is_no_url_is_answered_with_how_one_looks(url: str) -> None:
    with pytest.raises(InvalidSetting, match="duckdb:///data"):
        open_store(url)


def test_a_missing_driver_says_which_extra_to_install() -> None:
    backend = Backend("driver_that_nobody_installed.client:Client", FOLDERS["duckdb"].arguments, "timescale")
    with pytest.raises(MissingExtra, match=r"pip install 'tapehouse\[timescale\]'") as caught:
        load(backend)
    assert caught.value.details == {"extra": "timescale"}


def test_a_missing_module_of_our_own_is_a_fault_and_not_an_extra() -> None:
    with pytest.raises(ModuleNotFoundError):
        load(Backend("tapehouse.store.of_tomorrow:Store", FOLDERS["duckdb"].arguments))


def test_the_registry_imports_no_backend_by_itself() -> None:
    code = (
        "import sys, tapehouse.registry; print(*(name for name in sys.modules if name.startswith('tapehouse.store.')))"
    )
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert answer.stdout.split() == ["tapehouse.store.base"]
