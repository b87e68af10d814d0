"""Programs that read a URL and know nothing of Tapehouse, unmodified, from a server that is written to meanwhile."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from tests.system.conftest import MakesServer, Server

from tapehouse import Client
from tapehouse.model import TIMESTAMP

ROWS = 60_000
"""Enough for several ranges of every reader, in an Arrow file of some 3 MB."""

JAN_2_NS = 1_704_153_600_000_000_000
QUERY = "v1/bars?interval=1m&symbols=AAPL"


def minutes(first: int, rows: int, close: float) -> pa.Table:
    values = [close] * rows
    stamps = pa.array([JAN_2_NS + (first + i) * 60_000_000_000 for i in range(rows)], TIMESTAMP)
    columns = dict.fromkeys(("open", "high", "low", "close"), values)
    return pa.table({"symbol": ["AAPL"] * rows, "timestamp": stamps, **columns, "volume": values})


@pytest.fixture(scope="module")
def server(make_server: MakesServer) -> Iterator[Server]:
    server = make_server()
    server.start()
    with Client(server.url) as client:
        client.upload(minutes(0, ROWS, 1.0), interval="1m")
    yield server
    server.stop()


READERS: dict[str, Callable[[str], Any]] = {
    "polars.read_ipc": lambda url: pl.read_ipc(url + "&format=file"),
    "polars.read_ipc, compressed": lambda url: pl.read_ipc(url + "&format=file&compression=zstd"),
    "polars.scan_ipc": lambda url: pl.scan_ipc(url + "&format=file").collect(),
    "polars.scan_ipc of one column": lambda url: pl.scan_ipc(url + "&format=file").select("close").collect(),
    "polars.read_ipc_stream": lambda url: pl.read_ipc_stream(url + "&format=arrow"),
    "polars.read_csv": lambda url: pl.read_csv(url + "&format=csv"),
    "polars.scan_csv": lambda url: pl.scan_csv(url + "&format=csv").collect(),
    "polars.read_parquet": lambda url: pl.read_parquet(url + "&format=parquet"),
    "pandas.read_feather": lambda url: pd.read_feather(url + "&format=file"),
    "pandas.read_csv": lambda url: pd.read_csv(url + "&format=csv"),
    "pandas.read_parquet": lambda url: pd.read_parquet(url + "&format=parquet"),
    "pandas.read_json": lambda url: pd.read_json(url + "&format=jsonl", lines=True),
    "pyarrow.ipc.open_stream": lambda url: pa.ipc.open_stream(
        urllib.request.urlopen(url + "&format=arrow")
    ).read_pandas(),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_of_urls(server: Server, reader: str) -> None:
    frame = READERS[reader](f"{server.url}{QUERY}&as_of=1")

    assert len(frame) == ROWS
    assert set(frame["close"]) == {1.0}


def test_times_come_whole(server: Server) -> None:
    frame = pl.read_ipc(f"{server.url}{QUERY}&format=file&as_of=1")
    assert frame.schema["timestamp"] == pl.Datetime("ns", "UTC")
    assert frame["timestamp"].dt.epoch("ns")[0] == JAN_2_NS


@pytest.mark.parametrize("reader", [reader for reader in READERS if "polars" in reader])
def test_a_reading_is_of_one_commit_while_the_store_is_written_to(server: Server, reader: str) -> None:
    """Each commit changes every close, and so, in a text, the place of every byte behind the first."""
    stop = threading.Event()

    def keep_writing() -> None:
        with Client(server.url) as client:
            number = 2
            while not stop.is_set():
                client.upload(minutes(0, 2_000, float(10**number)), interval="1m")
                number = number % 9 + 1

    writing = threading.Thread(target=keep_writing)
    writing.start()
    try:
        frames = [READERS[reader](f"{server.url}{QUERY}&end=2024-01-30T00:00:00Z") for _ in range(5)]
    finally:
        stop.set()
        writing.join()
    for frame in frames:
        assert len(frame) == 28 * 1_440
        assert len(set(frame["close"][:2_000])) == 1
        assert set(frame["close"][2_000:]) == {1.0}


def test_what_was_written_is_there_in_the_next_reading(server: Server) -> None:
    with Client(server.url) as client:
        for close in (2.0, 3.0, 4.0):
            client.upload(minutes(ROWS, 1, close), interval="1m")
            for reader in ("polars.read_ipc", "polars.scan_ipc", "polars.read_csv", "polars.read_parquet"):
                assert READERS[reader](server.url + QUERY)["close"][-1] == close, reader


def test_curl_resumes_and_polls(server: Server) -> None:
    curl = shutil.which("curl")
    assert curl is not None
    url = f"{server.url}{QUERY}&format=jsonl"

    def run(*options: str) -> bytes:
        return subprocess.run([curl, "-sS", *options], capture_output=True, check=True, timeout=30).stdout

    plain = run(url)
    assert json.loads(plain.splitlines()[0])["symbol"] == "AAPL"
    assert run("--compressed", url) == plain
    tag = server.folder / "tag"
    run("--etag-save", str(tag), url)
    assert run("--etag-compare", str(tag), "-w", "%{http_code}", url) == b"304"
    assert run("-r", "-9", f"{server.url}{QUERY}&format=csv") == run(f"{server.url}{QUERY}&format=csv")[-9:]
