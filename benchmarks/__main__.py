"""`python -m benchmarks [NAME...]`: measure, keep the results, write docs/benchmarks.md.

Each suite runs in a process of its own. Without names all of them run. A run at another scale than the reference is for
trying things out: it prints its figures and leaves results and docs alone.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from benchmarks import measure, peers, report
from benchmarks.bench import FOLDER, Bench
from benchmarks.data import Scale
from benchmarks.measure import Result
from benchmarks.suites import SUITES

RESULTS = FOLDER / "results"


def main() -> None:
    arguments = _parse()
    if arguments.suite:
        _run_one(arguments.suite, _bench(arguments))
        return
    bench = _bench(arguments)
    if arguments.data_only:
        make_data(bench)
        return
    shutil.rmtree(bench.work, ignore_errors=True)
    for name in arguments.names or SUITES:
        print(f"{name} ...", flush=True)
        subprocess.run([sys.executable, "-m", "benchmarks", *sys.argv[1:], "--suite", name], check=True)
    shutil.rmtree(bench.work, ignore_errors=True)
    if bench.scale == Scale():
        report.write(RESULTS)


def _parse() -> argparse.Namespace:
    reference = Scale()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {' '.join(SUITES)}; all by default")
    parser.add_argument("--symbols", type=int, default=reference.symbols)
    parser.add_argument("--days", type=int, default=reference.days)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--large", action="store_true", help="also load a file of 5 GB, made first")
    parser.add_argument("--data-only", action="store_true", help="make the data and the peers' databases, and stop")
    parser.add_argument("--suite", choices=SUITES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(SUITES):
        parser.error(f"unknown: {' '.join(sorted(unknown))}; there are {' '.join(SUITES)}")
    return arguments


def _bench(arguments: argparse.Namespace) -> Bench:
    return Bench(symbols=arguments.symbols, days=arguments.days, repeats=arguments.repeats, large=arguments.large)


def make_data(bench: Bench) -> None:
    """All files and the peers' databases, one after another; what is there stays."""
    files = bench.files
    for make in (files.stocks, files.stocks_csv, files.stocks_by_day, files.adjusted, files.crypto, files.trades):
        path: Path = make()
        print(f"{path.name}: {path.stat().st_size / 2**20:,.0f} MiB", flush=True)
    for name, opened in peers.READERS.items():
        opened(files).close()
        print(f"{name}: ready", flush=True)


def _run_one(name: str, bench: Bench) -> None:
    module = importlib.import_module(f"benchmarks.suites.{name}")
    started = time.perf_counter()
    figures = module.run(bench)
    result = Result(
        benchmark=name,
        about=module.ABOUT,
        scale={"symbols": bench.symbols, "days": bench.days, "rows": bench.scale.rows},
        machine=measure.machine(),
        source=measure.source(),
        figures=figures,
        seconds=time.perf_counter() - started,
    )
    print(report.table(result), flush=True)
    if bench.scale == Scale():
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{name}.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")


if __name__ == "__main__":
    main()
