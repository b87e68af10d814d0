"""What became of one file while it is loaded."""

from __future__ import annotations

import time

import pyarrow as pa

from tapehouse.bulk.base import Counts, FileReport, LoadOptions, Problem, RecognisedFile
from tapehouse.bulk.formats.text import Parsed
from tapehouse.bulk.ordinals import Ordinals
from tapehouse.bulk.quarantine import QuarantineFile
from tapehouse.errors import InvalidData
from tapehouse.model import Commit, Kind


class FileLoad:
    """One file while it is loaded: rows that wait to be written, and what became of those before."""

    def __init__(self, number: int, file: RecognisedFile, quarantine: QuarantineFile) -> None:
        self.number, self.file = number, file
        self.report = FileReport(file=file, counts=Counts(), problem=file.problem)
        self.quarantine = quarantine
        self.abandoned = False
        self._bytes_done = self._bytes_told = 0
        self._ordinals = Ordinals(file.kind or Kind.BARS)
        self._waiting: list[pa.Table] = []
        self._remarks: dict[str, int] = {}
        self._started = time.perf_counter()
        self._ended = file.problem is not None

    def take(self, parsed: Parsed) -> None:
        """Take in a block, in the order of the file."""
        counts = self.report.counts
        counts.read += parsed.rows
        counts.quarantined += parsed.bad_rows
        counts.unwritten += parsed.table.num_rows
        self.quarantine.add(parsed.bad())
        for what, rows in parsed.remarks.items():
            self._remarks[what] = self._remarks.get(what, 0) + rows
        if parsed.table.num_rows:
            self._waiting.append(self._ordinals.add(parsed.table))
        self._bytes_done = max(self._bytes_done, parsed.source_bytes)

    def advance(self) -> int:
        """How many bytes of the file came in since this was last asked."""
        advance, self._bytes_told = self._bytes_done - self._bytes_told, self._bytes_done
        return advance

    def batch(self, rows: int) -> pa.Table | None:
        """The rows that wait, once there are that many."""
        waiting = sum(table.num_rows for table in self._waiting)
        if waiting < max(rows, 1):
            return None
        tables, self._waiting = self._waiting, []
        return pa.concat_tables(tables).unify_dictionaries()

    def written(self, rows: int, commit: Commit) -> None:
        counts = self.report.counts
        counts.unwritten -= rows
        counts.inserted += commit.inserted
        counts.replaced += commit.replaced
        counts.unchanged += commit.unchanged
        counts.rejected += commit.rejected
        counts.commits += bool(commit.inserted or commit.replaced or commit.rejected)

    def too_many_bad(self, options: LoadOptions) -> Problem | None:
        """Why the file is given up, when it is."""
        counts = self.report.counts
        if counts.quarantined < options.max_bad_rows or counts.quarantined <= counts.read * options.max_bad_share:
            return None
        worst = max(self.quarantine.rejections.values(), key=lambda each: each.rows)
        shown = "".join(f", for example line {row.line:,}: {row.row[:120]!r}" for row in worst.examples[:1])
        return Problem(
            InvalidData.code,
            f"{self.file.name}: {counts.quarantined:,} of the first {counts.read:,} rows are bad, mostly since "
            f"{worst.reason}{shown}. The rest of the file was not read; mend the file or the options, "
            "or allow more bad rows (max_bad_share)",
        )

    def abandon(self, problem: Problem) -> None:
        """Take no more of the file."""
        self.abandoned = True
        self.report.problem = self.report.problem or problem

    def end(self, problem: Problem | None) -> None:
        """Close the file's report; idempotent."""
        if self._ended:
            return
        self._ended = True
        self.quarantine.close()
        report = self.report
        report.problem = report.problem or problem
        report.rejections = sorted(self.quarantine.rejections.values(), key=lambda each: -each.rows)
        report.quarantine = None if self.quarantine.path is None else str(self.quarantine.path)
        if self._ordinals.uncertain:
            what = "rows so long after others of later times that equal ones were taken as repeats"
            self._remarks[what] = self._ordinals.uncertain
        report.notes = [f"{what} ({rows:,})" for what, rows in self._remarks.items()]
        report.seconds = time.perf_counter() - self._started
        self._bytes_done = self.file.size
