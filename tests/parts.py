"""Parts of the system that some tests need, and what happens when one is missing: the only place that decides it.

A test that needs a part carries its marker. Without the part it is skipped, and the reason names the Debian packages
that bring it; with `TAPEHOUSE_REQUIRE_ALL=1` it fails, and so does any other test that would be skipped.

`python tests/parts.py` prints the packages that this machine lacks.
"""

from __future__ import annotations

import os
import shutil
from typing import NamedTuple

import pytest


class Part(NamedTuple):
    """Programs that have to be on the path, and the Debian packages that bring them."""

    programs: tuple[str, ...]
    packages: tuple[str, ...]
    root: bool = False

    def missing(self) -> list[str]:
        """The programs that are not there."""
        programs = [program for program in self.programs if shutil.which(program) is None]
        return [*programs, *(["root"] if self.root and os.geteuid() != 0 else [])]


PARTS = {
    "browser": Part(("chromium", "chromedriver"), ("chromium", "chromium-driver", "fonts-dejavu-core")),
    "strace": Part(("strace",), ("strace",)),
    "redis": Part(("redis-server", "redis-cli"), ("redis-server",)),
    "kafka": Part(("java", "mvn"), ("default-jre-headless", "maven")),
    "mount": Part(("mount", "umount"), ("mount",), root=True),
}
"""Marker -> what its tests need."""


# Taken out of the environment: a server that a test starts refuses to start with a variable that is no setting.
ALL_REQUIRED = os.environ.pop("TAPEHOUSE_REQUIRE_ALL", "") == "1"
"""Whether a test that would be left out fails instead."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, part in PARTS.items():
        if item.get_closest_marker(marker) and (missing := part.missing()):
            pytest.skip(f"needs {' and '.join(missing)}: apt-get install {' '.join(part.packages)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> object:
    report: pytest.TestReport = yield  # type: ignore[misc]
    return _fail_skipped(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> object:
    report: pytest.CollectReport = yield  # type: ignore[misc]
    return _fail_skipped(report)


def _fail_skipped(report: pytest.TestReport | pytest.CollectReport) -> object:
    if report.skipped and ALL_REQUIRED and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"left out, though TAPEHOUSE_REQUIRE_ALL=1: {_reason(report.longrepr)}"
    return report


def _reason(longrepr: object) -> str:
    return str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)


if __name__ == "__main__":
    print(*sorted({package for part in PARTS.values() if part.missing() for package in part.packages}))  # noqa: T201
