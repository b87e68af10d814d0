"""`tapehouse export` as people use it: refused, killed, resumed, on a full disk, from a folder and from a server."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.system.conftest import TAPEHOUSE, MakesServer, clean_environment, until
from tests.unit.export.parts import T0, filled

from tapehouse.export.base import MANIFEST, UNFINISHED
from tapehouse.model import MINUTE_NS, SCHEMAS, TIMESTAMP, Interval, Kind
from tapehouse.store.base import Selection
from tapehouse.store.duckdb import DuckDBStore

SYMBOLS = 40
BARS = 2_000
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with 80,000 bars, some of them archived, trades and quotes."""
    folder = tmp_path_factory.mktemp("export") / "data"
    store = DuckDBStore(folder)
    rng = np.random.default_rng(7)
    for number in range(SYMBOLS):
        store.write(Kind.BARS, _bars(f"S{number:02}", rng), interval=Interval.M1, source="test")
        if number == SYMBOLS // 2:
            store.compact(everything=True)
    other = filled()
    for kind in (Kind.TRADES, Kind.QUOTES):
        store.write(kind, other.read(Selection(kind=kind, columns=tuple(SCHEMAS[kind].names))).table())
    store.close()
    return folder


def _bars(symbol: str, rng: np.random.Generator) -> pa.Table:
    close = np.cumsum(rng.normal(0, 1, BARS)) + 1_000
    prices = {"open": close, "high": close + 1, "low": close - 1, "close": close, "volume": np.full(BARS, 5.0)}
    times = pa.array(T0 + np.arange(BARS, dtype=np.int64) * 60 * MINUTE_NS).cast(TIMESTAMP)
    return pa.table({"symbol": pa.array([symbol] * BARS), "timestamp": times, **prices})


def command(data: Path | str, *arguments: str) -> list[str]:
    return [str(TAPEHOUSE), "export", *arguments, "--store", str(data)]


def call(data: Path | str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(data, *arguments), capture_output=True, text=True, timeout=PATIENCE_S, env=clean_environment()
    )


def files_of(out: Path) -> list[tuple[str, str]]:
    manifest = json.loads((out / MANIFEST).read_bytes())
    return [(file["path"], file["sha256"]) for file in manifest["files"]]


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """The files of an export by month that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert call(data, str(out), "--format", "csv.gz", "--partition", "symbol,month").returncode == 0
    return files_of(out)


@pytest.mark.slow
def test_killed_at_any_time_it_goes_on(data: Path, whole: list[tuple[str, str]], tmp_path: Path) -> None:
    chance = random.Random(3)
    out = tmp_path / "out"
    kills = 0
    while not (out / MANIFEST).exists():
        more = ["--resume"] if (out / UNFINISHED).exists() and (out / UNFINISHED).stat().st_size else []
        process = subprocess.Popen(
            command(data, str(out), "--format", "csv.gz", "--partition", "symbol,month", *more),
            env=clean_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            written = len(list(out.rglob("*.csv.gz")))
            until("files to come", lambda: process.poll() is not None or len(list(out.rglob("*.csv.gz"))) > written)  # noqa: B023
            time.sleep(chance.uniform(0, 0.3) if kills < 5 else 0)
            if kills < 5:
                process.send_signal(signal.SIGKILL)
            _, said = process.communicate(timeout=PATIENCE_S)
        kills += 1
        assert process.returncode in (0, -signal.SIGKILL), said
    assert kills > 2
    assert files_of(out) == whole
    on_disk = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert on_disk == {MANIFEST, *(path for path, _ in whole)}
    assert call(data, str(out), "--verify").returncode == 0


def test_ctrl_c_says_how_to_go_on(data: Path, whole: list[tuple[str, str]], tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(data, str(out), "--format", "csv.gz", "--partition", "symbol,month"),
        env=clean_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        until("a file", lambda: list(out.rglob("*.csv.gz")))
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, said
    assert f"tapehouse export {out} --resume" in said
    assert not list(out.rglob("*part*"))
    assert call(data, str(out), "--resume").returncode == 0
    assert files_of(out) == whole


def test_what_it_says_and_refuses(data: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    done = call(data, out, "S0*", "--match", "S0*", "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (1, "invalid_symbol")
    done = call(data, out, "--match", "S0*", "--kind", "bars", "--json")
    manifest = json.loads(done.stdout)
    assert (manifest["rows"], len(manifest["files"])) == (10 * BARS, 10)
    assert "has an export already" in call(data, out).stderr
    assert call(data, out, "--overwrite", "--resume").returncode == 2
    assert "3 files" in call(data, out, "S01", "S02", "S03", "--overwrite").stdout
    assert "3 files" in call(data, out, "--verify").stdout
    (tmp_path / "out" / "bars_1m" / "S01_1m.parquet").write_bytes(b"x")
    verified = call(data, out, "--verify", "--json")
    assert (verified.returncode, json.loads(verified.stdout)["ok"]) == (1, False)
    assert "S01_1m.parquet: has 1 bytes" in call(data, out, "--verify").stderr
    assert "no manifest.json" in call(data, str(tmp_path), "--verify").stderr
    assert "format is one of" in call(data, out, "--format", "xlsx").stderr


def test_from_a_server_the_files_are_the_same(
    data: Path, whole: list[tuple[str, str]], tmp_path: Path, make_server: MakesServer
) -> None:
    import shutil

    server = make_server()
    shutil.copytree(data, server.folder / "data")
    server.start()
    choices = ("--format", "csv.gz", "--partition", "symbol,month")
    for place in (server.url, str(server.folder / "data")):  # over TCP, and through the socket of the folder's owner
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        done = call(place, str(out), *choices)
        assert done.returncode == 0, done.stderr
        assert files_of(out) == whole


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.mount
@pytest.mark.parametrize("format_", ["parquet", "csv", "jsonl.zst", "arrow", "sqlite", "duckdb"])
def test_a_full_disk_is_an_error_and_the_export_goes_on_when_there_is_room(
    data: Path, small_disk: Path, format_: str
) -> None:
    out = small_disk / "out"
    done = call(data, str(out), "--format", format_, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "store_full", done.stdout
    assert not [path for path in out.rglob("*") if "part" in path.name]
    assert (out / UNFINISHED).exists()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert call(data, str(out), "--resume").returncode == 0
    assert call(data, str(out), "--verify").returncode == 0
