"""Killed at any failpoint, a store comes back with what it had acknowledged, each row exactly once."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.system import history
from tests.unit.bus import test_sqlite
from tests.unit.derive import test_deriver
from tests.unit.record import test_recorder

from tapehouse.failpoints import ENVIRONMENT
from tapehouse.store.duckdb import DuckDBStore
from tapehouse.store.memory import MemoryStore

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src" / "tapehouse"
ELSEWHERE = {
    "folder.upgrade.copied",
    "folder.upgrade.stepped",
    *test_sqlite.FAILPOINTS,
    *test_recorder.FAILPOINTS,
    *test_deriver.FAILPOINTS,
}
"""Failpoints that no life of a store passes: other tests kill there."""


def failpoints() -> list[str]:
    """The names of all failpoints in the code."""
    names = set()
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "failpoint":
                (argument,) = node.args
                assert isinstance(argument, ast.Constant), f"{path}:{node.lineno}: a failpoint has a literal name"
                names.add(argument.value)
    return sorted(names)


def live(folder: Path, first: int, armed: str) -> tuple[int, int]:
    """Live in another process; returns its exit code and how many steps had returned."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.system.history", str(folder), str(first)],
        env={**os.environ, ENVIRONMENT: armed},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode in (0, -9), run.stderr
    return run.returncode, first + len(run.stdout.split())


@cache
def after(steps: int) -> dict[str, Any]:
    """What the reference store holds after so many steps."""
    store = MemoryStore()
    for step in history.STEPS[:steps]:
        step(store)
    return history.contents(store)


def files_on_disk(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for root in ("archive", "history") for p in (folder / root).rglob("*.*")}


def check(folder: Path, done: int) -> int:
    """The store holds the steps that returned, and perhaps the one under way; returns how many that makes."""
    store = DuckDBStore(folder)
    try:
        held = history.contents(store)
        assert files_on_disk(folder) == {file.path for file in store._engine.files()}
        store.compact(everything=True)
        assert history.contents(store) == held
        assert files_on_disk(folder) == {file.path for file in store._engine.files()}
    finally:
        store.close()
    possible = {steps: after(steps) for steps in (done, min(done + 1, len(history.STEPS)))}
    found = [steps for steps, expected in possible.items() if expected == held]
    assert found, f"after {done} acknowledged steps the store holds neither {done} nor {done + 1} of them"
    return found[-1]


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("name", [name for name in failpoints() if name not in ELSEWHERE])
def test_a_killed_store_comes_back_whole(name: str, nth: int, tmp_path: Path) -> None:
    code, done = live(tmp_path / "data", 0, f"{name}=kill@{nth}")
    assert code == -9, f"the life of a store passes {name} fewer than {nth} times"
    held = check(tmp_path / "data", done)
    if nth > 1:
        return
    code, done = live(tmp_path / "data", held, "")
    assert code == 0
    assert check(tmp_path / "data", done) == len(history.STEPS)


@pytest.mark.parametrize("action", ["error", "full"])
@pytest.mark.parametrize(
    "name", ["write.rows.inserted", "archive.file.written", "compact.files.synced", "compact.registered"]
)
def test_a_failure_in_between_changes_nothing(
    name: str, action: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tapehouse import failpoints as armed
    from tapehouse.errors import StoreError, StoreFull

    store = DuckDBStore(tmp_path / "data")
    for step in history.STEPS[:5]:
        step(store)
    before = history.contents(store)
    step = history.STEPS[8 if name.startswith("write") else 3]
    monkeypatch.setitem(armed._ARMED, name, (action, 1))
    with pytest.raises(StoreFull if action == "full" else StoreError):
        step(store)
    assert history.contents(store) == before
    step(store)  # and the store goes on working
    store.close()


def test_elsewhere_names_failpoints() -> None:
    assert set(failpoints()) >= ELSEWHERE
