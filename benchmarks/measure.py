"""How things are timed, weighed and compared, and what a benchmark reports."""

from __future__ import annotations

import gc
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import psutil

ROOT = Path(__file__).parents[1]
VERSIONS = ("duckdb", "pyarrow", "polars", "arcticdb", "numpy")
SAMPLE_EVERY_S = 0.02


class Figure(msgspec.Struct, kw_only=True):
    """One line of the table: ours beside peers, in one unit, from one run.

    `better` says which way is better. `target` is what ours has to reach, `ratio_target` what ours / `ratio_to` has to
    reach (a speed) or stay below (a time or a size).
    """

    name: str
    unit: str
    ours: float
    better: str
    peers: dict[str, float] = {}
    target: float | None = None
    ratio_to: str | None = None
    ratio_target: float | None = None
    note: str = ""
    samples: dict[str, list[float]] = {}

    @property
    def ratio(self) -> float | None:
        """Ours over the peer it is compared with."""
        return self.ours / self.peers[self.ratio_to] if self.ratio_to else None

    @property
    def met(self) -> bool | None:
        """Whether every target is met; None without one."""
        checks = [
            self._reaches(value, target)
            for value, target in ((self.ours, self.target), (self.ratio, self.ratio_target))
            if value is not None and target is not None
        ]
        return all(checks) if checks else None

    def _reaches(self, value: float, target: float) -> bool:
        return value >= target if self.better == "higher" else value <= target


class Result(msgspec.Struct, kw_only=True):
    """What one benchmark found: its figures, on what, at which scale."""

    benchmark: str
    about: str
    scale: dict[str, int]
    machine: dict[str, str]
    source: str = "unknown"
    figures: list[Figure]
    seconds: float = 0.0


def source() -> str:
    """The tree of the measured code in git, with a plus when files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "src")
    return git("rev-parse", "--short=12", "HEAD:src/tapehouse") + ("+" if changed else "")


def machine() -> dict[str, str]:
    """What the figures depend on, without saying whose machine it is."""
    memory = psutil.virtual_memory().total / 2**30
    described = {"cores": str(os.cpu_count()), "memory": f"{memory:.0f} GiB", "python": platform.python_version()}
    return described | {"system": platform.system(), "cpu": _cpu()} | {name: version(name) for name in VERSIONS}


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.machine()


def seconds(run: Callable[[], object]) -> float:
    """How long one call takes; garbage is collected before it, not during it."""
    gc.collect()
    gc.disable()
    try:
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
    finally:
        gc.enable()


def alternate(
    subjects: Mapping[str, Callable[[], object]], repeats: int, *, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each subject, one call of each in turn (A B C, B C A, ...), so that noise falls on all alike."""
    names = list(subjects)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(warm_up + repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            taken = seconds(subjects[name])
            if turn >= warm_up:
                samples[name].append(taken)
    return samples


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least that share of the samples does not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def medians(samples: Mapping[str, Sequence[float]], factor: float = 1.0) -> dict[str, float]:
    return {name: statistics.median(values) * factor for name, values in samples.items()}


def folder_bytes(folder: Path) -> int:
    """The size of all files below a folder, as `ls` shows it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def drop_page_cache(folder: Path) -> None:
    """The files below the folder are not in memory afterwards: all caches as root, else these files' pages."""
    os.sync()
    if os.geteuid() == 0 and os.access("/proc/sys/vm/drop_caches", os.W_OK):
        Path("/proc/sys/vm/drop_caches").write_text("3")
        return
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def in_a_process(function: str, **arguments: Any) -> dict[str, Any]:
    """What `module:function(**arguments)` returns, from a fresh process, with `peak_rss` of it and its children."""
    command = [sys.executable, "-m", "benchmarks.child", function, json.dumps(arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        peak = PeakMemory(process.pid)
        assert process.stdout is not None
        output = process.stdout.read()
        process.wait()
    peak.stop()
    if process.returncode != 0:
        raise RuntimeError(f"{function} ended with {process.returncode}")
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return answer | {"peak_rss": peak.bytes}


class PeakMemory:
    """The most memory that a process and its children have resident together, sampled; shared pages count each time."""

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._process = psutil.Process(pid)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_EVERY_S):
            self.bytes = max(self.bytes, sum(_resident([self._process])))

    def stop(self) -> None:
        """Stop sampling."""
        self._done.set()
        self._thread.join()


def _resident(processes: Iterable[psutil.Process]) -> Iterable[int]:
    for process in processes:
        try:
            yield process.memory_info().rss
            yield from _resident(process.children())
        except psutil.NoSuchProcess:  # it ended between two looks
            continue
