"""`export` of the clients: of a folder, of a server, waited for or awaited, the same files."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.unit.client.conftest import Serve
from tests.unit.export.parts import filled

from tapehouse import AsyncClient, Client
from tapehouse.errors import Conflict, InvalidRequest, NotFound, ServerUnreachable, StoreError, TapehouseError
from tapehouse.export.base import Manifest, Progress
from tapehouse.export.verify import verify
from tapehouse.store.memory import MemoryStore


def described(manifest: Manifest) -> Any:
    return manifest.commit, manifest.rows, manifest.files, manifest.content, manifest.instruments


@pytest.mark.parametrize("choices", [{}, {"partition": "month", "format": "csv.zst"}, {"as_of": 3, "match": "?APL"}])
def test_every_client_writes_the_same_files(serve: Serve, tmp_path: Path, choices: dict[str, Any]) -> None:
    store = filled()
    server = serve(store=store)
    with Client(server.url) as client:
        there = client.export(tmp_path / "http", **choices)

    async def awaited() -> Manifest:
        async with AsyncClient(server.url) as client:
            return await client.export(tmp_path / "async", **choices)

    assert described(asyncio.run(awaited())) == described(there)
    assert verify(tmp_path / "http").ok
    assert there.commit == choices.get("as_of", store.head())
    assert there.rows > 0


def test_a_folder_is_exported_in_this_process(tmp_path: Path) -> None:
    with Client(tmp_path / "data", create=True) as client:
        for kind, interval in (("trades", None), ("bars", "1d")):
            frame = rows(kind)
            client.upload(frame, kind=kind, interval=interval)
        here = client.export(tmp_path / "out", format="csv", partition=["symbol", "year"])
        assert [file.path for file in here.files] == [
            "bars_1d/AAPL/AAPL_1d_2024.csv",
            "trades/AAPL/AAPL_trades_2024.csv",
        ]

    async def awaited() -> Manifest:
        async with AsyncClient(tmp_path / "data") as client:
            return await client.export(tmp_path / "again", format="csv", partition=["symbol", "year"])

    assert described(asyncio.run(awaited())) == described(here)


def rows(kind: str) -> Any:
    import polars as pl

    times = pl.Series("timestamp", [1_704_153_600_000_000_000]).cast(pl.Datetime("ns", "UTC"))
    names = ("price", "size") if kind == "trades" else ("open", "high", "low", "close", "volume")
    return pl.DataFrame([pl.Series("symbol", ["AAPL"]), times, *(pl.Series(name, [1.5]) for name in names)])


def test_errors_are_the_same_over_http(serve: Serve, tmp_path: Path) -> None:
    with Client(serve(store=filled()).url) as client:
        with pytest.raises(NotFound, match="NOPE"):
            client.export(tmp_path / "out", "NOPE")
        with pytest.raises(NotFound, match="--resample"):
            client.export(tmp_path / "out", interval="1w")
        with pytest.raises(InvalidRequest, match="existing"):
            client.export(tmp_path / "out", existing="maybe")
        with pytest.raises(InvalidRequest, match="partition"):
            client.export(tmp_path / "out", partition="decade")
        assert not (tmp_path / "out").exists()
        client.export(tmp_path / "out", kind=["quotes", "trades"])
        with pytest.raises(Conflict):
            client.export(tmp_path / "out")
    with pytest.raises(ServerUnreachable), Client("http://127.0.0.1:1") as nobody:
        nobody.export(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_server_that_fails_leaves_an_export_to_resume(serve: Serve, tmp_path: Path) -> None:
    class Ailing(MemoryStore):
        well = True

        def read(self, selection: Any) -> Any:
            if not self.well and selection.symbols and "CON" in selection.symbols and not selection.limit:
                raise StoreError("gone")
            return super().read(selection)

    store = Ailing()
    store.__dict__.update(filled().__dict__)
    store.well = False
    with Client(serve(store=store).url) as client:
        with pytest.raises(TapehouseError, match="gone"):
            client.export(tmp_path / "out", kind=["bars", "trades"], threads=1)
        assert not verify(tmp_path / "out").ok
        store.well = True
        told: list[Progress] = []
        manifest = client.export(tmp_path / "out", existing="resume", progress=told.append)
    assert verify(tmp_path / "out").ok
    assert manifest.rows == told[-1].rows
