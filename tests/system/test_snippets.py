"""The snippets of the README and the guides are run as a reader would: the examples loaded, a server beside.

` ```python ` blocks of a page run one after another in one namespace. In ` ```console ` blocks, lines that begin with
`$` are commands; what follows one is its output, in which `...` stands for anything. Other blocks are not run.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN_ELSEWHERE = {"load.md": ROOT / "tests" / "unit" / "bulk" / "test_guide.py"}
"""Pages that need files of their own, and the test that runs them."""
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs" / "guides").glob("*.md")))
    if page.name not in RUN_ELSEWHERE and BLOCK.search(page.read_text())
]
SERVER = "http://127.0.0.1:8720"
START_LIMIT_S = 30.0


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the examples, loaded into its `data` and settled."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "examples", folder / "examples")
    _run("tapehouse load examples/data/us-daily.csv.gz --instruments examples/instruments.toml", folder, {})
    _run("tapehouse compact --everything", folder, {})
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem.lower())
def test_snippets_do_what_the_page_says(
    page: Path, loaded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(loaded, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    with _server(tmp_path) as address:
        monkeypatch.setenv("TAPEHOUSE_URL", address)
        namespace: dict[str, object] = {"__name__": "__main__"}
        for language, block in BLOCK.findall(page.read_text()):
            mended = block.replace(SERVER, address)
            if language == "python":
                _execute(mended, page, namespace)
            else:
                _check_console(mended, tmp_path, {"TAPEHOUSE_URL": address})


def _execute(block: str, page: Path, namespace: dict[str, object]) -> None:
    """Run a block in the page's namespace; `await` may stand at its top, as in a notebook."""
    code = compile(block, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    answer = eval(code, namespace)
    if inspect.iscoroutine(answer):
        asyncio.run(answer)


def test_pages_that_are_left_to_others_are_run_there() -> None:
    for page, test in RUN_ELSEWHERE.items():
        assert (ROOT / "docs" / "guides" / page).exists()
        assert page in test.read_text()


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """The address of a server that owns the folder's `data`."""
    log = folder / "server.log"
    with log.open("w") as out:
        process = subprocess.Popen([BIN / "tapehouse", "serve", "--port", "0"], cwd=folder, stdout=out, stderr=out)
    try:
        yield _address(log, process)
    finally:
        process.terminate()
        assert process.wait(START_LIMIT_S) == 0, log.read_text()


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
        if found and httpx.get(f"{found.group()}/readyz").status_code == 200:
            return found.group()
        time.sleep(0.05)
    pytest.fail(f"the server did not start: {log.read_text()}")


def _check_console(block: str, folder: Path, environment: dict[str, str]) -> None:
    for part in re.split(r"^(?=\$ )", block, flags=re.MULTILINE):
        command, _, expected = part.removeprefix("$ ").partition("\n")
        if not part.startswith("$ "):
            assert not part.strip(), f"output without a command: {part!r}"
            continue
        shown = _run(command, folder, environment)
        if expected.strip():
            assert _pattern(expected).fullmatch(shown.strip()), f"$ {command}\n{shown}"


def _pattern(expected: str) -> re.Pattern[str]:
    """The expected output as a pattern: `...` is anything, on a line of its own any number of lines."""
    lines = [r"(?:.*\n)*?.*" if line == "..." else _line(line) for line in expected.strip().splitlines()]
    return re.compile("\n".join(lines))


def _line(line: str) -> str:
    return ".*".join(re.escape(piece.rstrip() if n == 0 else piece) for n, piece in enumerate(line.split("...")))


def _run(command: str, folder: Path, environment: dict[str, str]) -> str:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=os.environ | {"PATH": path, "COLUMNS": "120"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"$ {command}\n{done.stdout}"
    return done.stdout
