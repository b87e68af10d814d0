"""A folder: who has it open, and what a client makes of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.client.conftest import bars

from tapehouse import AsyncClient, Client, InvalidRequest, InvalidSetting, NotFound, TapehouseError
from tapehouse.client.embedded import folder_of, reach
from tapehouse.client.http import Server
from tapehouse.errors import StoreLocked
from tapehouse.server import start_in_thread
from tapehouse.store.duckdb import DuckDBStore
from tapehouse.store.owner import find_owner


def test_what_is_written_is_there_when_the_folder_is_opened_again(tmp_path: Path) -> None:
    with Client(tmp_path) as client:
        client.upload(bars(), interval="1d")
        assert find_owner(tmp_path) is not None
    assert find_owner(tmp_path) is None
    with Client(f"duckdb:///{tmp_path}") as client:
        assert client.bars("AAPL").equals(bars())


def test_another_folder_is_not_made_a_store_by_reading_it(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(NotFound, match="holds something, but no data of Tapehouse"):
        Client(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "bars.csv").write_text("symbol")
    with pytest.raises(InvalidSetting, match="is not a folder"):
        Client(tmp_path / "bars.csv")


def test_a_folder_that_is_not_there_is_not_made_by_a_misspelt_name(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no folder"):
        Client(tmp_path / "dta")
    assert not (tmp_path / "dta").exists()
    with Client(tmp_path / "dta", create=True) as client:
        assert client.symbols() == []


@pytest.mark.parametrize(
    ("where", "kind"),
    [("duckdb://data", InvalidRequest), ("oracle://data", InvalidSetting), ("localhost:8720", NotFound)],
)
def test_what_is_no_place(
    where: str, kind: type[TapehouseError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind):
        Client(where)


def test_relative_and_absolute_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder_of("data") == folder_of("duckdb:///data") == folder_of("~/data") == tmp_path / "data"
    assert folder_of(f"duckdb:///{tmp_path}") == tmp_path


def test_two_clients_of_one_process_share_a_folder(tmp_path: Path) -> None:
    first = Client(tmp_path)
    first.upload(bars(), interval="1d")
    second = Client(str(tmp_path) + "/.")
    first.close()
    assert second.bars("AAPL").height == 3
    assert find_owner(tmp_path) is not None
    second.close()
    second.close()
    assert find_owner(tmp_path) is None
    with pytest.raises(TapehouseError, match="closed"):
        second.symbols()


def test_a_client_that_is_forgotten_lets_go(tmp_path: Path) -> None:
    client = Client(tmp_path)
    del client
    gc.collect()
    assert find_owner(tmp_path) is None


def test_an_async_client_that_is_forgotten_lets_go(tmp_path: Path) -> None:
    async def forget() -> None:
        client = AsyncClient(tmp_path)
        assert await client.symbols() == []

    asyncio.run(forget())
    gc.collect()
    assert find_owner(tmp_path) is None


def test_two_stores_in_memory_are_two() -> None:
    with Client("memory://") as one, Client("memory://") as other:
        one.upload(bars(), interval="1d")
        assert other.symbols() == []


HOLD = """
import sys
from tapehouse import Client
client = Client(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


def test_a_folder_that_another_process_has_open_and_does_not_serve(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(StoreLocked, match=f"in use by process {process.pid}.*does not serve it"):
            Client(tmp_path)
        process.communicate("")
    with Client(tmp_path) as client:
        assert client.symbols() == []


def test_a_folder_that_is_served_is_reached_through_its_socket(tmp_path: Path) -> None:
    with contextlib.closing(DuckDBStore(tmp_path)) as store:
        with contextlib.closing(start_in_thread(store, Path(store.owner.socket))):
            found = reach(tmp_path)
            assert isinstance(found, Server)
            assert found.socket == store.owner.socket
            with Client(tmp_path) as client:
                assert client.store is None
                client.upload(bars(), interval="1d")
        assert store.symbols() == ["AAPL"]
        with pytest.raises(StoreLocked, match="does not serve it"):
            Client(tmp_path)


def test_rows_that_nobody_takes_to_their_end_are_let_go(tmp_path: Path) -> None:
    with Client(tmp_path) as client:
        client.upload(bars(), interval="1d")
        client.upload(bars("MSFT"), interval="1d")
        stream = client.stream_bars(None)
        frames = iter(stream)
        next(frames)
        assert open_readings(client) == 1
        stream.close()
        assert open_readings(client) == 0
        with pytest.raises(TapehouseError, match="closed"):
            next(frames)
        for _ in client.stream_bars(None):
            break
        gc.collect()
        assert open_readings(client) == 0


def open_readings(client: Client) -> int:
    return int(client.stats()["open_readings"])


def test_rows_that_no_task_takes_to_their_end_are_let_go(tmp_path: Path) -> None:
    async def leave() -> int:
        async with AsyncClient(tmp_path) as client:
            await client.upload(bars(), interval="1d")
            async with client.stream_bars("AAPL") as stream:
                frames = aiter(stream)
                await anext(frames)
            return int((await client.stats())["open_readings"])

    assert asyncio.run(leave()) == 0


def test_compact(tmp_path: Path) -> None:
    with Client(tmp_path) as client:
        client.upload(bars(), interval="1d")
        assert client.compact(everything=True).rows == 3
        assert client.bars("AAPL").equals(bars())


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import sys, tapehouse; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pyarrow", "numpy", "polars", "httpx", "msgspec"} & set(loaded)


def test_the_public_names() -> None:
    import tapehouse

    for name in tapehouse.__all__:
        assert getattr(tapehouse, name) is not None
    assert dir(tapehouse) == sorted(tapehouse.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Clinet'"):
        tapehouse.Clinet  # noqa: B018
