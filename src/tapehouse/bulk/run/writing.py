"""Writes that are tried again, and set aside when that does not help."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from tapehouse.bulk.account import FileLoad
from tapehouse.bulk.base import LoadOptions, Problem, SetAside, Writer
from tapehouse.bulk.quarantine import translated
from tapehouse.bulk.run.batches import series_of, with_source
from tapehouse.errors import StoreError, StoreFull, TapehouseError
from tapehouse.model import Commit, Interval, Kind
from tapehouse.store.base import Outcome, WritesTogether

FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 10.0
IN_A_ROW = 3
"""So many batches that had to be set aside one after the other mean that the store is gone."""

Rows = Sequence[tuple[FileLoad, pa.Table]]


class Writing:
    """Writes batches; `stop` ends a wait between two attempts."""

    def __init__(
        self, writer: Writer, options: LoadOptions, batch: str, folder: Path, *, together: bool, stop: threading.Event
    ) -> None:
        self._writer, self._options, self._batch, self._folder = writer, options, batch, folder
        self._together, self._stop = together, stop
        self._failed_in_a_row = 0
        self.set_aside: list[SetAside] = []

    def write(self, rows: Rows) -> tuple[Commit, list[Outcome]] | None:
        """All of it as one commit, and what became of the rows of each file; None when it was set aside.

        Raises what cannot pass (`StoreFull` and other errors of the folder, `Conflict`), and what does not pass when
        batch after batch fails.
        """
        wait_s = FIRST_WAIT_S
        for attempt in range(self._options.retries + 1):
            try:
                written = self._write(rows)
            except TapehouseError as exc:
                if not may_pass(exc):
                    raise
                failure = exc
            else:
                self._failed_in_a_row = 0
                return written
            if attempt < self._options.retries and self._stop.wait(wait_s):
                break
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= IN_A_ROW or self._stop.is_set():
            raise failure
        self._put_aside(rows, failure)
        return None

    def _write(self, rows: Rows) -> tuple[Commit, list[Outcome]]:
        kind, interval = series_of(rows[0][0])
        options: dict[str, Any] = {
            "interval": interval,
            "on_conflict": self._options.on_conflict,
            "prefer": self._options.prefer,
            "batch": self._batch,
        }
        if not self._together:
            [(file, table)] = rows
            commit = self._writer.write(kind, table, source=file.file.source, **options)
            return commit, [outcome_of(commit)]
        if len(rows) == 1:
            [(file, table)] = rows
            return cast(WritesTogether, self._writer).write_together(kind, [table], source=file.file.source, **options)
        tables = [with_source(table, file.file.source) for file, table in rows]
        return cast(WritesTogether, self._writer).write_together(kind, tables, **options)

    def _put_aside(self, rows: Rows, failure: TapehouseError) -> None:
        """Into a Parquet file, durable, so that the load may say that these rows are settled."""
        tables = [with_source(table, file.file.source) for file, table in rows]
        table = pa.concat_tables(tables, promote_options="default").unify_dictionaries()
        path = _free(self._folder, series_of(rows[0][0]))
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                pq.write_table(table, file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
        except OSError as exc:
            path.unlink(missing_ok=True)
            raise translated(exc, self._folder) from exc
        sources = tuple(sorted({file.file.source for file, _ in rows}))
        problem = Problem(failure.code, failure.message)
        self.set_aside.append(SetAside(path=str(path), rows=table.num_rows, problem=problem, sources=sources))


def may_pass(exc: TapehouseError) -> bool:
    """Whether the same write can succeed later without anybody's help; a full disk needs somebody's."""
    return type(exc) is StoreError or (exc.retryable and not isinstance(exc, StoreFull))


def outcome_of(commit: Commit) -> Outcome:
    """What became of a commit's rows."""
    return Outcome(
        inserted=commit.inserted, replaced=commit.replaced, unchanged=commit.unchanged, rejected=commit.rejected
    )


def _free(folder: Path, series: tuple[Kind, Interval | None]) -> Path:
    kind, interval = series
    stem, number = f"set-aside-{kind}{f'-{interval}' if interval else ''}", 1
    while (path := folder / f"{stem}-{number}.parquet").exists():
        number += 1
    return path
