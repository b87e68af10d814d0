"""Owning a folder, its format, and what happens when it cannot be used."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tapehouse.errors import InvalidSetting, StoreDamaged, StoreLocked, StoreReadOnly, StoreTooNew
from tapehouse.failpoints import ENVIRONMENT
from tapehouse.store.duckdb import DuckDBStore
from tapehouse.store.folder import FORMAT_FILE, prepare_folder, read_format, write_format
from tapehouse.store.owner import LOCK_FILE, Ownership, find_owner, socket_path


def test_nobody_owns_a_new_or_a_closed_folder(tmp_path: Path) -> None:
    assert find_owner(tmp_path) is None
    store = DuckDBStore(tmp_path)
    assert find_owner(tmp_path) == store.owner
    store.close()
    assert find_owner(tmp_path) is None
    store.close()


def test_a_second_owner_is_told_who_the_first_is(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path, command="tapehouse serve")
    store.announce_address("http://127.0.0.1:8720")
    with pytest.raises(StoreLocked, match=rf"process {os.getpid()} \(tapehouse serve, serving http://127.0.0.1:8720"):
        DuckDBStore(tmp_path)
    store.close()
    DuckDBStore(tmp_path).close()


HOLD = """
import sys, time
from tapehouse.store.owner import Ownership
from pathlib import Path
held = Ownership(Path(sys.argv[1]), "holder")
sys.stdout.write("held\\n"); sys.stdout.flush()
time.sleep(60)
"""


def test_a_killed_owner_no_longer_owns(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder, holder.stdout:
        assert holder.stdout.readline() == "held\n"
        owner = find_owner(tmp_path)
        assert owner is not None
        assert owner.pid == holder.pid
        with pytest.raises(StoreLocked, match="holder"):
            Ownership(tmp_path)
        holder.kill()
    assert find_owner(tmp_path) is None
    Ownership(tmp_path).release()


def test_a_lock_file_that_says_nothing_yet_still_locks(tmp_path: Path) -> None:
    held = Ownership(tmp_path)
    (tmp_path / LOCK_FILE).write_bytes(b"{")
    owner = find_owner(tmp_path)
    assert owner is not None
    assert owner.command == "unknown"
    held.release()


def test_the_socket_of_a_long_path_goes_to_a_private_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    deep = tmp_path.joinpath(*["a-long-folder-name"] * 8)
    path = socket_path(deep)
    assert len(os.fsencode(path)) <= 107
    Ownership(deep).release()
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.parent.chmod(0o755)
    with pytest.raises(InvalidSetting, match="must belong to this user alone"):
        Ownership(deep)


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidSetting, match="is not a folder"):
        DuckDBStore(tmp_path / "file")


def as_nobody(action: Callable[[], None]) -> None:
    """Run it in a child that is not root, since root may write anywhere; its assertions are ours."""
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            action()
        except BaseException:
            logging.exception("in the child")
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    DuckDBStore(folder).close()
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    folder.chmod(0o555)
    (folder / LOCK_FILE).chmod(0o444)

    def refused() -> None:
        with pytest.raises(StoreReadOnly, match="cannot write to the folder"):
            DuckDBStore(folder)

    as_nobody(refused)
    folder.chmod(0o755)


def test_a_newer_folder_is_refused_untouched(tmp_path: Path) -> None:
    DuckDBStore(tmp_path).close()
    write_format(tmp_path, 99)
    with pytest.raises(StoreTooNew, match="format 99"):
        DuckDBStore(tmp_path)
    assert read_format(tmp_path) == 99
    assert find_owner(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{}", '{"format": "x"}', "[]"])
def test_a_damaged_format_file_is_named(tmp_path: Path, text: str) -> None:
    DuckDBStore(tmp_path).close()
    (tmp_path / FORMAT_FILE).write_text(text)
    with pytest.raises(StoreDamaged, match=r"format\.json"):
        DuckDBStore(tmp_path)


def test_a_database_without_its_format_is_not_taken_for_a_new_folder(tmp_path: Path) -> None:
    DuckDBStore(tmp_path).close()
    (tmp_path / FORMAT_FILE).unlink()
    with pytest.raises(StoreDamaged, match=r"no format\.json"):
        DuckDBStore(tmp_path)


def test_a_damaged_database_is_said_to_be_damaged(tmp_path: Path) -> None:
    DuckDBStore(tmp_path).close()
    (tmp_path / "tapehouse.duckdb").write_bytes(b"not a database at all" * 1_000)
    with pytest.raises(StoreDamaged, match=r"tapehouse\.duckdb"):
        DuckDBStore(tmp_path)
    assert find_owner(tmp_path) is None


def old_folder(folder: Path) -> Path:
    """A folder of format 1 with two files that the upgrades below change."""
    folder.mkdir()
    write_format(folder, 1)
    (folder / "names").write_text("old")
    (folder / "tree").mkdir()
    (folder / "tree" / "leaf").write_text("old")
    (folder / "big").write_text("not changed, so not copied")
    return folder


def rename_words(folder: Path) -> None:
    (folder / "names").write_text((folder / "names").read_text() + ", new")
    (folder / "tree" / "leaf").write_text("new")


def add_file(folder: Path) -> None:
    (folder / "added").write_text((folder / "names").read_text())


UPGRADES = {1: (("names", "tree"), rename_words), 2: (("added",), add_file)}


def test_an_older_folder_is_upgraded_step_by_step_after_a_copy(tmp_path: Path) -> None:
    folder = old_folder(tmp_path / "data")
    prepare_folder(folder, upgrades=UPGRADES, newest=3)
    assert json.loads((folder / FORMAT_FILE).read_text())["format"] == 3
    assert (folder / "added").read_text() == "old, new"
    assert (folder / "backup" / "format-1" / "names").read_text() == "old"
    assert (folder / "backup" / "format-1" / "tree" / "leaf").read_text() == "old"
    assert not (folder / "backup" / "format-1" / "big").exists()


@pytest.mark.parametrize("name", ["folder.upgrade.copied", "folder.upgrade.stepped"])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_killed_upgrade_starts_over_from_the_copy(tmp_path: Path, name: str, nth: int) -> None:
    folder = old_folder(tmp_path / "data")
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from tests.unit.store.test_folder import UPGRADES, prepare_folder; "
            "prepare_folder(Path(sys.argv[1]), upgrades=UPGRADES, newest=3)",
            str(folder),
        ],
        env={**os.environ, ENVIRONMENT: f"{name}=kill@{nth}"},
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert run.returncode == -signal.SIGKILL
    prepare_folder(folder, upgrades=UPGRADES, newest=3)
    assert read_format(folder) == 3
    assert (folder / "names").read_text() == "old, new"
    assert (folder / "added").read_text() == "old, new"
