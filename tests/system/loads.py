"""A load in a process of its own, as the kill tests run it: `python -m tests.system.loads FOLDER FILES [BATCH]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from tapehouse import bulk
from tapehouse.bulk.base import NEWEST
from tapehouse.store.duckdb import DuckDBStore

OPTIONS: dict[str, Any] = {"block_bytes": 4_000, "batch_rows": 1_000, "threads": 2}


def main(folder: Path, files: Path, batch: str) -> None:
    """Load the files, or go on with their newest load when it was killed; prints the report as JSON."""
    store = DuckDBStore(folder)
    resumes = batch == NEWEST
    options = bulk.LoadOptions(**OPTIONS, batch=None if resumes else batch, resume=batch if resumes else None)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    report = bulk.load([files], store, options, quarantine_dir=folder / "quarantine")
    store.close()
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
