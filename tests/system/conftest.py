"""Servers that are real processes, and one browser for all tests of the page.

A test that asks for `page` carries the marker `browser`; what happens without Chromium is decided in `tests/parts.py`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

TAPEHOUSE = Path(sys.executable).parent / "tapehouse"
LIMIT_S = 30.0
POLL_S = 0.05
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-device-scale-factor=1",
]


def until(describe: str, condition: Callable[[], Any]) -> Any:
    """What the condition returns once that is true; fails with the description when it never is."""
    end = time.monotonic() + LIMIT_S
    while not (value := condition()):
        if time.monotonic() > end:
            pytest.fail(f"waited {LIMIT_S:.0f} s in vain: {describe}")
        time.sleep(POLL_S)
    return value


@dataclass
class Server:
    """A `tapehouse serve` on a folder."""

    folder: Path
    flags: tuple[str, ...] = ()
    port: int = 0
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Start it and wait for its address; a second start takes the same port again."""
        log = self.folder / "server.log"
        command = [TAPEHOUSE, "serve", "--store", self.store, "--port", str(self.port), *self.flags]
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=out, stderr=out, env=clean_environment())
        self.port = int(until(f"an address in {log.read_text()}", lambda: self._announced(log)))

    def _announced(self, log: Path) -> str | None:
        if self.process.poll() is not None:
            pytest.fail(f"the server stopped: {log.read_text()}")
        found = re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())
        return found and found.group(1)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(LIMIT_S)

    @property
    def store(self) -> str:
        return f"duckdb:///{self.folder / 'data'}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def run(self, *arguments: str | Path) -> str:
        """What `tapehouse` with those arguments prints; the folder's owner, if there is one, does the work."""
        command = [TAPEHOUSE, *map(str, arguments)]
        environment = clean_environment() | {"TAPEHOUSE_STORE": self.store}
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, env=environment, timeout=LIMIT_S, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def clean_environment() -> dict[str, str]:
    """Ours without any setting of Tapehouse."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TAPEHOUSE_")}


class MakesServer(Protocol):
    """Makes a server on a new folder, empty or with the data of another that nobody serves; it is not started yet."""

    def __call__(self, *flags: str, like: Server | None = None) -> Server: ...


@pytest.fixture(scope="session")
def make_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakesServer]:
    """Servers that are stopped at the end of the session, whatever happens."""
    made: list[Server] = []

    def make(*flags: str, like: Server | None = None) -> Server:
        made.append(Server(tmp_path_factory.mktemp("server"), flags))
        if like is not None:
            shutil.copytree(like.folder / "data", made[-1].folder / "data")
        return made[-1]

    yield make
    started = [server for server in made if hasattr(server, "process")]
    for server in started:
        server.process.terminate()
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One headless Chromium for all tests, driven by Debian's chromedriver."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()
