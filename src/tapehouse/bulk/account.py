"""What became of one file while it is loaded."""

from __future__ import annotations

import time
from collections.abc import Container
from pathlib import Path

import msgspec
import pyarrow as pa

from tapehouse.bulk.base import Counts, FileReport, LoadOptions, Problem, RecognisedFile
from tapehouse.bulk.formats.text import Parsed
from tapehouse.bulk.ordinals import Ordinals
from tapehouse.bulk.quarantine import QuarantineFile, Reasons
from tapehouse.codec.content import Sums, add_to
from tapehouse.errors import InvalidData
from tapehouse.model import Kind
from tapehouse.store.base import Met, Outcome


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """A block that was taken in and waits to be written: its good rows, how many it had, and where the next begins.

    A file's last piece has no rows, and `end`; `problem` says why it ended before the file did.
    """

    file: FileLoad
    table: pa.Table | None = None
    read: int = 0
    quarantined: int = 0
    reasons: Reasons = msgspec.field(default_factory=Reasons)
    sums: Sums = {}
    blocks: int = 0
    place: int = 0
    bad_bytes: int = 0
    """How large the quarantine file is with the block's bad rows."""
    end: bool = False
    problem: Problem | None = None

    @property
    def rows(self) -> int:
        return 0 if self.table is None else int(self.table.num_rows)


class FileLoad:
    """One file while it is loaded.

    `blocks` of it are settled: written, set aside or without good rows. `place` is that of the last of these, and
    `settled` counts what they held, `settled_reasons` says why some of it was refused, and `sums` are the hashes of
    what is stored. The report counts all that was read. `bad_bytes` of the quarantine file are of what is settled. A
    `doubted` file was written since it was read; one that has `lost_bad` rows misses some in quarantine.
    """

    def __init__(self, number: int, file: RecognisedFile, quarantine: QuarantineFile) -> None:
        self.number, self.file = number, file
        self.report = FileReport(file=file, counts=Counts(), problem=file.problem)
        self.quarantine = quarantine
        self.abandoned = False
        self.blocks = self.place = self.first_commit = self.bad_bytes = 0
        self.replays = self.doubted = self.lost_bad = False
        self.settled, self.sums = Counts(), Sums()
        self.reasons, self.settled_reasons = Reasons(), Reasons()
        self.ended = file.problem is not None
        self._bytes_done = self._bytes_told = 0
        self._ordinals = Ordinals(file.kind or Kind.BARS)
        self._started = time.perf_counter()

    @property
    def numbered(self) -> bool:
        """Whether rows were told apart by their place among equal ones, which depends on those before."""
        return self._ordinals.used

    @property
    def kind(self) -> Kind:
        """Raises `ValueError` for a file that was not recognised."""
        if self.file.kind is None:
            raise ValueError(f"{self.file.name} was not recognised")
        return self.file.kind

    def resume(self, settled: Counts, reasons: Reasons, sums: Sums, blocks: int, place: int, *, replays: bool) -> None:
        """So far it came in earlier runs; with `replays`, what is settled is parsed again to number the rest."""
        self.settled, self.sums, self.blocks, self.place, self.replays = settled, sums, blocks, place, replays
        self.settled_reasons = reasons
        self.reasons.add(reasons)
        self.report.counts = msgspec.structs.replace(settled)
        self.report.earlier = msgspec.structs.replace(settled)

    def resume_quarantine(self, path: str, size: int) -> None:
        """Its bad rows of earlier runs are the first bytes of that file."""
        self.bad_bytes, self.lost_bad = size, not self.quarantine.resume(Path(path), size)

    def restart(self, why: str) -> None:
        """Read all again: what an earlier run settled cannot be told from the rest.

        Rows that it stored stay in the counts and the sums, as they stay in the store; bad ones are found again.
        """
        self.blocks, self.place, self.bad_bytes, self.replays = 0, 0, 0, False
        self.forget_bad()
        stored = f"{self.settled.read:,} rows that were loaded of it before stay in the store, and are counted too"
        self.report.notes.append(f"read again from its beginning, since {why}; {stored}")

    def forget_bad(self) -> None:
        """Bad rows that are read again are not to be counted, or kept, twice."""
        self.quarantine.discard()
        self.reasons, self.settled_reasons = Reasons(), Reasons()
        for counts in (self.settled, self.report.counts, self.report.earlier or Counts()):
            counts.read -= counts.quarantined
            counts.quarantined = 0

    def finished(self) -> None:
        """It came to its end in an earlier run."""
        self.ended = True
        self._bytes_done = self.file.size
        self._give_quarantine()
        self._give_reasons()

    def replay(self, parsed: Parsed) -> None:
        """A block that is settled: only its place among equal rows counts."""
        self._ordinals.add(parsed.table)

    def take(self, parsed: Parsed, sums: Sums, blocks: int, place: int) -> Piece:
        """Take in a block, in the order of the file; `blocks` counts it."""
        counts = self.report.counts
        counts.read += parsed.rows
        counts.quarantined += parsed.bad_rows
        counts.unwritten += parsed.table.num_rows
        bad = parsed.bad()
        self.quarantine.add(bad)
        reasons = Reasons.of(bad, parsed.remarks)
        self.reasons.add(reasons)
        self._bytes_done = max(self._bytes_done, parsed.source_bytes)
        table = self._ordinals.add(parsed.table) if parsed.table.num_rows else None
        return Piece(
            file=self,
            table=table,
            read=parsed.rows,
            quarantined=parsed.bad_rows,
            reasons=reasons,
            sums=sums,
            blocks=blocks,
            place=place,
            bad_bytes=self.quarantine.size,
        )

    def advance(self) -> int:
        """How many bytes of the file came in since this was last asked."""
        advance, self._bytes_told = self._bytes_done - self._bytes_told, self._bytes_done
        return advance

    def written(self, rows: int, outcome: Outcome, mine: Container[int] = (), commit: int | None = None) -> None:
        """So many waiting rows are in the store, by that commit if it took one; `mine` are those of the load before."""
        commits = int(bool(outcome.inserted or outcome.replaced or outcome.rejected))
        for counts in (self.report.counts, self.settled):
            counts.inserted += outcome.inserted
            counts.replaced += outcome.replaced
            counts.unchanged += outcome.unchanged
            counts.rejected += outcome.rejected
            counts.commits += commits
            self._count(counts, outcome.met, mine)
        if commits and not self.first_commit:
            self.first_commit = commit or 0
        self.report.counts.unwritten -= rows

    def _count(self, counts: Counts, met: Met, mine: Container[int]) -> None:
        """What rows met. A stored row is of this file when it was stored since the file's first commit; that one may
        have rows of files before it too, of which the source tells."""
        counts.duplicates_in_file += met.duplicates_in_table
        counts.duplicates_between_files += met.duplicates_between
        counts.conflicts_in_file += met.conflicts_in_table
        counts.conflicts_between_files += met.conflicts_between
        for is_own, by_commit in ((True, met.own), (False, met.others)):
            for commit, (duplicates, conflicts) in by_commit.items():
                since = 0 < self.first_commit <= commit
                ours = since and (is_own or commit > self.first_commit)
                where = "in_store" if commit not in mine else "in_file" if ours else "between_files"
                _add(counts, f"duplicates_{where}", duplicates)
                _add(counts, f"conflicts_{where}", conflicts)

    def put_aside(self, rows: int) -> None:
        """So many waiting rows are in a file beside the store."""
        self.report.counts.unwritten -= rows
        self.report.counts.set_aside += rows
        self.settled.set_aside += rows

    def settle(self, piece: Piece, *, stored: bool) -> None:
        """The piece is written or set aside."""
        self.settled.read += piece.read
        self.settled.quarantined += piece.quarantined
        self.settled_reasons.add(piece.reasons)
        if stored:
            add_to(self.sums, piece.sums)
        if piece.end:
            self.end(piece.problem)
        else:
            self.blocks, self.place, self.bad_bytes = piece.blocks, piece.place, piece.bad_bytes

    def too_many_bad(self, options: LoadOptions, *, ended: bool = False) -> Problem | None:
        """Why the file is given up, when it is; one that has `ended` is judged however few rows it had."""
        counts = self.report.counts
        least = 1 if ended else options.max_bad_rows
        if counts.quarantined < least or counts.quarantined <= counts.read * options.max_bad_share:
            return None
        worst = max(self.reasons.rejections.values(), key=lambda each: each.rows)
        shown = "".join(f", for example line {row.line:,}: {row.row[:120]!r}" for row in worst.examples[:1])
        waits = counts.unwritten == counts.read - counts.quarantined
        kept = "none of it was stored" if waits else "what was read of it before stays stored"
        rest = f"Of the file {kept}" if ended else "The rest of the file was not read"
        return Problem(
            InvalidData.code,
            f"{self.file.name}: {counts.quarantined:,} of {'its' if ended else 'the first'} {counts.read:,} rows are "
            f"bad, mostly since {worst.reason}{shown}. {rest}; mend the file or the options, "
            "or allow more bad rows (max_bad_share)",
        )

    def abandon(self, problem: Problem) -> None:
        """Take no more of the file."""
        self.abandoned = True
        self.report.problem = self.report.problem or problem

    def end(self, problem: Problem | None) -> None:
        """Close the file's report; idempotent."""
        if self.ended:
            return
        self.ended = True
        self.quarantine.close()
        report = self.report
        report.problem = report.problem or problem
        self._give_quarantine()
        if self._ordinals.uncertain:
            what = "rows so long after others of later times that equal ones were taken as repeats"
            self.reasons.remarks[what] = self.settled_reasons.remarks[what] = self._ordinals.uncertain
        self._give_reasons()
        report.seconds = time.perf_counter() - self._started

    def _give_quarantine(self) -> None:
        self.report.quarantine = None if self.quarantine.path is None else str(self.quarantine.path)

    def _give_reasons(self) -> None:
        self.report.rejections = sorted(self.reasons.rejections.values(), key=lambda each: -each.rows)
        self.report.notes += [f"{what} ({rows:,})" for what, rows in self.reasons.remarks.items()]

    def read_to_end(self) -> None:
        """Nothing more will be read of it."""
        self._bytes_done = self.file.size


def _add(counts: Counts, name: str, rows: int) -> None:
    setattr(counts, name, getattr(counts, name) + rows)
