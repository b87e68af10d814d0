"""The doctor, of folders that are well and of ones that are not."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from tests.unit.client.conftest import bars

from tapehouse import Client
from tapehouse.cli.doctor import Finding, examine
from tapehouse.model import Instrument


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three bars, one of them in the archive; and a free port."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAPEHOUSE_PORT", "0")
    with Client(tmp_path / "data", create=True) as client:
        client.upload(bars(), interval="1d")
        client.compact(everything=True)
    return tmp_path / "data"


def found(folder: Path | str, *, deep: bool = False) -> dict[str, Finding]:
    """The worst finding of each check."""
    order = {"ok": 0, "warning": 1, "problem": 2}
    findings = sorted(examine(str(folder), deep=deep), key=lambda finding: order[finding.status])
    return {finding.check: finding for finding in findings}


def test_all_is_well(folder: Path) -> None:
    findings = found(folder, deep=True)
    assert {finding.status for finding in findings.values()} == {"ok"}
    assert findings["store"].found == "can be opened: 1 symbols, 1 series, 3 rows"
    assert "1 files" in findings["archive"].found


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_it_only_looks(folder: Path) -> None:
    (registered,) = (folder / "archive").rglob("*.parquet")
    left = registered.with_name("0000000099.parquet")
    left.write_bytes(registered.read_bytes())
    before = state(folder)
    assert "1 files that a killed compaction left" in found(folder, deep=True)["orphans"].found
    assert state(folder) == before


def test_a_folder_of_an_older_format_is_not_upgraded(folder: Path) -> None:
    (folder / "format.json").write_text('{"format": 1}')
    before = state(folder)
    older = found(folder)["store"]
    assert (older.status, "not looked into: its format is 1" in older.found) == ("warning", True)
    assert state(folder) == before


def test_a_folder_without_a_database(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert "has no database" in found(tmp_path / "data")["store"].found
    assert list((tmp_path / "data").iterdir()) == []


def test_what_a_server_has_open_is_asked_of_it(folder: Path) -> None:
    with Client(folder) as client:
        client.coverage()
        assert "answers: 1 symbols" in found(folder)["store"].found


def test_a_footer_with_a_changed_bit(folder: Path) -> None:
    (archived,) = (folder / "archive").rglob("*.parquet")
    content = bytearray(archived.read_bytes())
    content[-9] ^= 1
    archived.write_bytes(content)
    assert archived.name in found(folder)["store"].found


def test_a_folder_that_is_not_there_is_no_problem_yet(tmp_path: Path) -> None:
    assert found(tmp_path / "nothing")["folder"].status == "warning"
    (tmp_path / "file").touch()
    assert found(tmp_path / "file")["folder"].status == "problem"


def test_a_damaged_page_is_found_by_looking_deep(folder: Path) -> None:
    (archived,) = (folder / "archive").rglob("*.parquet")
    content = bytearray(archived.read_bytes())
    content[8:40] = bytes(32)
    archived.write_bytes(content)
    assert found(folder)["archive"].status == "ok"
    damaged = found(folder, deep=True)["archive"]
    assert damaged.status == "problem"
    assert str(archived) in damaged.found


def test_a_file_that_is_cut_off(folder: Path) -> None:
    (archived,) = (folder / "archive").rglob("*.parquet")
    archived.write_bytes(archived.read_bytes()[:-10])
    findings = found(folder)
    assert findings["store"].status == findings["archive"].status == "problem"
    assert str(archived) in findings["store"].found


def test_a_database_that_is_none(folder: Path) -> None:
    (folder / "tapehouse.duckdb").write_bytes(b"not a database" * 1_000)
    assert found(folder)["store"].status == "problem"


def test_a_folder_of_a_newer_version(folder: Path) -> None:
    (folder / "format.json").write_text('{"format": 99}')
    newer = found(folder)["store"]
    assert newer.status == "problem"
    assert "newer" in newer.found


def test_a_setting_that_there_is_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPEHOUSE_PROT", "1")
    assert "did you mean" in found(folder)["settings"].found


def test_a_port_that_is_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("TAPEHOUSE_PORT", str(taken.getsockname()[1]))
        assert found(folder)["port"].status == "problem"


def test_a_calendar_that_there_is_not(folder: Path) -> None:
    with Client(folder) as client:
        assert client.store is not None
        client.store.put_instruments([Instrument(pattern="X", calendar="NOWHERE")])  # type: ignore[attr-defined]
    assert "NOWHERE" in found(folder)["calendars"].found


def test_a_server_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAPEHOUSE_PORT", "0")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "nobody answers" in found(f"http://127.0.0.1:{port}")["store"].found
