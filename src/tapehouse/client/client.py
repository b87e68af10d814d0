"""The client for programs that wait."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, overload

import pyarrow as pa

from tapehouse.client import reads, writes
from tapehouse.client.arrow import Rows
from tapehouse.client.embedded import Local, export, files_below, reach
from tapehouse.client.frames import FrameName, Page, Shape, shape_of
from tapehouse.client.http import Server, Shell
from tapehouse.client.live.following import Delivery, Following
from tapehouse.client.live.streams import Stream, serving
from tapehouse.client.reads import (
    DEFAULT_MEASURES,
    AggregateOptions,
    BarOptions,
    ExportChoices,
    ReadOptions,
    Symbols,
    Time,
    export_options,
)
from tapehouse.client.wire import Operation
from tapehouse.export.base import Manifest, OnProgress
from tapehouse.model import Commit, Instrument, Interval, Kind, OnConflict
from tapehouse.query.base import Coverage
from tapehouse.store.base import Batch, CompactionReport, Store, Undone

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from tapehouse.bulk.base import Certificate, LoadOptions, LoadReport, RecognisedFile
    from tapehouse.bulk.base import OnProgress as OnLoadProgress
    from tapehouse.bulk.checks.base import Quality
    from tapehouse.client.jobs.trust import CertificateSummary
    from tapehouse.jobs.base import Job

T = TypeVar("T")


class Client:
    """Market data from a server, or from a folder that this process opens itself.

    `Client("http://127.0.0.1:8720")` talks to a server, `Client("data")` to the folder's owner, and when nobody owns it
    opens it. `Client()` is TAPEHOUSE_URL, or a server on this machine. Any number of threads may share one. Close it,
    or use it in a `with`.

    Every method raises the errors of `tapehouse.errors`: the same ones over HTTP and in a folder.
    """

    def __init__(
        self,
        where: str | os.PathLike[str] | None = None,
        *,
        key: str | None = None,
        timeout_s: float = 60.0,
        create: bool = False,
    ) -> None:
        """`key`: an API key (default: TAPEHOUSE_KEY). `timeout_s`: the longest silence of a server. `create`: make the
        folder when it is not there."""
        reached = reach(where, key=key, timeout_s=timeout_s, create=create)
        self._backend = Shell(reached) if isinstance(reached, Server) else reached
        self._finalizer = weakref.finalize(self, self._backend.abandon)

    @overload
    def bars(
        self, symbols: Symbols, *, frame: Literal["polars"] = ..., capitalize: bool = ..., **options: Unpack[BarOptions]
    ) -> pl.DataFrame: ...
    @overload
    def bars(
        self, symbols: Symbols, *, frame: Literal["pandas"], capitalize: bool = ..., **options: Unpack[BarOptions]
    ) -> pd.DataFrame: ...
    @overload
    def bars(
        self, symbols: Symbols, *, frame: Literal["arrow"], capitalize: bool = ..., **options: Unpack[BarOptions]
    ) -> pa.Table: ...
    def bars(
        self, symbols: Symbols, *, frame: FrameName = "polars", capitalize: bool = False, **options: Unpack[BarOptions]
    ) -> Any:
        """Bars: the columns symbol, timestamp (when the bar opens; UTC, nanoseconds), open, high, low, close, volume.

        `symbols`: one, a list, or None for all. Options:

        - `interval`: `"1d"` (default), `1s 5s 15s 30s 1m 5m 15m 30m 1h 4h 1d 1w 1mo`. One that is not stored is
          resampled; then there are two more columns, `made_from` and `complete`;
        - `start` (inclusive), `end` (exclusive): dates or times, see `reads.Time`. A date is midnight in the
          instrument's zone;
        - `columns`: names of values, or `"all"`; symbol and timestamp always come;
        - `limit`: at most so many rows, over all symbols; `newest_first`: time descending within each symbol;
        - `as_of`: a commit number or a time: what was known then; `source`: that source's rows.

        `frame`: `"polars"`, `"pandas"` (indexed by timestamp for one symbol given as a string, else by symbol and
        timestamp; the commit is in `.attrs`) or `"arrow"`. `capitalize`: Open, High, Low, Close, Volume.
        """
        return self._frame(reads.bars(symbols, options), symbols, frame, capitalize)

    @overload
    def trades(
        self, symbols: Symbols, *, frame: Literal["polars"] = ..., **options: Unpack[ReadOptions]
    ) -> pl.DataFrame: ...
    @overload
    def trades(self, symbols: Symbols, *, frame: Literal["pandas"], **options: Unpack[ReadOptions]) -> pd.DataFrame: ...
    @overload
    def trades(self, symbols: Symbols, *, frame: Literal["arrow"], **options: Unpack[ReadOptions]) -> pa.Table: ...
    def trades(self, symbols: Symbols, *, frame: FrameName = "polars", **options: Unpack[ReadOptions]) -> Any:
        """Trades: symbol, timestamp, price, size, side, id. The options are those of `bars`, without an interval."""
        return self._frame(reads.read(Kind.TRADES, symbols, **options), symbols, frame)

    @overload
    def quotes(
        self, symbols: Symbols, *, frame: Literal["polars"] = ..., **options: Unpack[ReadOptions]
    ) -> pl.DataFrame: ...
    @overload
    def quotes(self, symbols: Symbols, *, frame: Literal["pandas"], **options: Unpack[ReadOptions]) -> pd.DataFrame: ...
    @overload
    def quotes(self, symbols: Symbols, *, frame: Literal["arrow"], **options: Unpack[ReadOptions]) -> pa.Table: ...
    def quotes(self, symbols: Symbols, *, frame: FrameName = "polars", **options: Unpack[ReadOptions]) -> Any:
        """Quotes: symbol, timestamp, bid, bid_size, ask, ask_size. The options are those of `trades`."""
        return self._frame(reads.read(Kind.QUOTES, symbols, **options), symbols, frame)

    def bars_page(
        self,
        symbols: Symbols,
        *,
        page: str | None = None,
        frame: FrameName = "polars",
        capitalize: bool = False,
        **options: Unpack[BarOptions],
    ) -> Page:
        """As `bars`, with the commit, what the bars were made from, and the token of the next page."""
        rows = self._run(reads.bars(symbols, options, page=page))
        return shape_of(symbols, frame, capitalize).page(rows)

    def stream_bars(
        self,
        symbols: Symbols,
        *,
        frame: FrameName = "polars",
        capitalize: bool = False,
        **options: Unpack[BarOptions],
    ) -> FrameStream:
        """As `bars`, piece by piece while it arrives: for answers that are larger than memory."""
        return FrameStream(self._backend, reads.bars(symbols, options), shape_of(symbols, frame, capitalize))

    def stream(
        self,
        channels: str | Sequence[str],
        symbols: str | Sequence[str],
        *,
        start: Time | None = None,
        delivery: Delivery = "lossless",
        interval_ms: int | None = None,
    ) -> Stream:
        """Live records: `for event in client.stream("trades", ["AAPL"], start="2024-01-02")`.

        - `channels`: `trades`, `quotes`, `metrics`, `bars.1m`; `symbols`: names and patterns, `"*"` for all;
        - `start`: `"now"` (default), `"snapshot"`, a time of any age, or the `position` of a former stream;
        - `delivery`: `"lossless"`, `"conflate"` (a message per topic every `interval_ms`) or `"drop"`.

        Events are `Records`, `Gap`, `CaughtUp` and `Reconnected`: a connection that is lost is made again, and goes on
        where it was. Raises `NotSupported` for a folder that no server owns.
        """
        following = Following(channels, symbols, start=start, delivery=delivery, interval_ms=interval_ms)
        return Stream(serving(self._backend), following)

    @overload
    def latest(
        self, symbols: Symbols = ..., *, kind: str = ..., interval: str | None = ..., frame: Literal["polars"] = ...
    ) -> pl.DataFrame: ...
    @overload
    def latest(
        self, symbols: Symbols = ..., *, kind: str = ..., interval: str | None = ..., frame: Literal["pandas"]
    ) -> pd.DataFrame: ...
    @overload
    def latest(
        self, symbols: Symbols = ..., *, kind: str = ..., interval: str | None = ..., frame: Literal["arrow"]
    ) -> pa.Table: ...
    def latest(
        self,
        symbols: Symbols = None,
        *,
        kind: str = "bars",
        interval: str | None = None,
        frame: FrameName = "polars",
    ) -> Any:
        """The newest row of each symbol; bars without an interval: the newest of any, with a column `interval`."""
        return self._frame(reads.latest(symbols, kind, interval), symbols, frame)

    @overload
    def aggregate(
        self,
        symbols: Symbols,
        *,
        bucket: str,
        measures: Sequence[str] = ...,
        groups: Mapping[str, Sequence[str]] | None = ...,
        frame: Literal["polars"] = ...,
        **options: Unpack[AggregateOptions],
    ) -> pl.DataFrame: ...
    @overload
    def aggregate(
        self,
        symbols: Symbols,
        *,
        bucket: str,
        measures: Sequence[str] = ...,
        groups: Mapping[str, Sequence[str]] | None = ...,
        frame: Literal["pandas"],
        **options: Unpack[AggregateOptions],
    ) -> pd.DataFrame: ...
    @overload
    def aggregate(
        self,
        symbols: Symbols,
        *,
        bucket: str,
        measures: Sequence[str] = ...,
        groups: Mapping[str, Sequence[str]] | None = ...,
        frame: Literal["arrow"],
        **options: Unpack[AggregateOptions],
    ) -> pa.Table: ...
    def aggregate(
        self,
        symbols: Symbols,
        *,
        bucket: str,
        measures: Sequence[str] = DEFAULT_MEASURES,
        groups: Mapping[str, Sequence[str]] | None = None,
        frame: FrameName = "polars",
        **options: Unpack[AggregateOptions],
    ) -> Any:
        """Measures per symbol (or per group, by name) and time bucket: an interval such as `"1h"` or `"1mo"`.

        Measures: open high low close volume vwap count trades return volatility; what they mean stands at
        `tapehouse.store.base.Aggregation`. Options: `start`, `end`, `as_of`, `source` as of `bars`, and `interval`, the
        bars that they are computed from (default: the finest stored).
        """
        return self._frame(reads.aggregate(symbols, bucket, measures, groups, options), symbols, frame)

    def symbols(self, match: str | None = None) -> list[str]:
        """All symbols, or those that match a pattern with `*` and `?`, sorted."""
        return self._run(reads.SymbolList(match=match))

    def coverage(
        self, symbols: Symbols = None, *, kind: str | None = None, interval: str | None = None, spans: int = 100
    ) -> list[Coverage]:
        """First, last, rows, and the gaps in between by the calendar, of each series; at most the newest `spans`."""
        return self._run(reads.coverage(symbols, kind, interval, spans))

    def upload(
        self,
        frame: Any,
        *,
        interval: str | None = None,
        kind: str = "bars",
        symbol: str | None = None,
        tz: str | None = None,
        source: str | None = None,
        on_conflict: str = "replace",
        prefer: Sequence[str] = (),
        batch: str | None = None,
    ) -> Commit:
        """Store a frame of Polars, pandas or Arrow as one commit: all rows or none, durable when this returns.

        Columns may be capitalised, and the times be called timestamp, time or date, or be a pandas index; `symbol`
        names the one symbol of a frame without that column. Times without a zone need `tz`; dates are
        midnight in the zone of the instrument, which is where bars of days and longer have to open.
        `source` is the source of rows that name none; `on_conflict` is `replace`, `keep`, `prefer` (the order of
        sources in `prefer`) or `error`. The same rows again change nothing, so an upload whose answer was lost may be
        repeated. A server takes up to its `max_upload_rows` and `max_body_bytes` at once; more goes with
        `upload_parts`.

        Raises `InvalidTable` for a table that cannot be taken, `Conflict`, and `LimitExceeded`.
        """
        write = writes.write(
            frame,
            kind=kind,
            interval=interval,
            symbol=symbol,
            tz=tz,
            source=source,
            on_conflict=on_conflict,
            prefer=prefer,
            batch=batch,
        )
        return self._run(self._dated(write))

    def write(
        self,
        kind: Kind,
        table: pa.Table,
        *,
        interval: Interval | None = None,
        on_conflict: OnConflict = OnConflict.REPLACE,
        prefer: Sequence[str] = (),
        source: str | None = None,
        batch: str | None = None,
    ) -> Commit:
        """`Store.write` of `tapehouse.store.base`: a table in the model's own columns and types, as one commit."""
        return self._run(
            writes.Write(
                kind=kind,
                table=table,
                interval=interval,
                on_conflict=on_conflict,
                prefer=tuple(prefer),
                source=source,
                batch=batch,
            )
        )

    def upload_parts(self, frame: Any, *, rows: int = 1_000_000, **options: Any) -> list[Commit]:
        """As `upload`, as several commits of at most `rows` rows and one batch (`batch`, or a new name).

        A part that fails raises; the parts before it stay, and repeating the whole changes nothing of theirs.
        """
        whole = self._dated(writes.write(frame, **options))
        return [self._run(part) for part in writes.parts(whole, rows)]

    def load(
        self,
        what: Any,
        *,
        validate: str = "sample",
        progress: OnLoadProgress | None = None,
        files: Sequence[RecognisedFile] | None = None,
        quarantine_dir: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> LoadReport:
        """Load files (paths, folders, patterns) or a frame with everything that `tapehouse load` does.

        Through the folder's owner it is a job there, and other servers are sent the files; this follows the job to its
        end. `options` are the fields of `tapehouse.bulk.LoadOptions` (`interval`, `symbol`, `timezone`, `on_conflict`,
        `batch`, `resume` ...); `validate` is `full`, `sample` or `off`. `progress` is told how far it is. `files` (a
        plan made before) and `quarantine_dir` count where this process has the folder open. Ctrl-C ends it after the
        write that runs: what is stored stays, and the report says that it was interrupted.

        Raises what stops a load (`StoreFull`, `UnreadableFile` when no file can be read, ...), with its report in
        `details["report"]`.
        """
        from tapehouse.client.jobs import loading

        chosen = loading.options_of(options)
        if (paths := loading.paths_of(what)) is None:
            table = self._dated(loading.frame_of(what, chosen)).table
            with loading.as_file(table, chosen) as (paths, left):
                return self._load(paths, left, validate, progress)
        return self._load(paths, chosen, validate, progress, files=files, quarantine_dir=quarantine_dir)

    def _load(
        self, paths: list[str], options: LoadOptions, validate: str, progress: OnLoadProgress | None, **how: Any
    ) -> LoadReport:
        from tapehouse.client.jobs import following, loading

        if isinstance(self._backend, Local):
            return self._backend.load(paths, options, validate, progress=progress, **how)
        here = self._backend.server.socket is not None
        job = self._run(loading.job_of(paths, options, validate, progress, here=here, files=files_below))
        return following.report_of(following.follow(self._run, job, progress))

    def jobs(self, *, limit: int = 100) -> list[Job]:
        """What waits, runs, and ran, newest first, without the reports."""
        from tapehouse.client.jobs import operations

        return self._run(operations.ListJobs(limit=limit))

    def job(self, id: str) -> Job:
        """How a job of the server is now, with its report once it has one."""
        from tapehouse.client.jobs import operations

        return self._run(operations.AskJob(id=id))

    def cancel_job(self, id: str) -> Job:
        """Have a job end after its current step, or never begin; what it wrote stays."""
        from tapehouse.client.jobs import operations

        return self._run(operations.CancelJob(id=id))

    def batches(
        self, names: str | Sequence[str] | None = None, *, before: int | None = None, limit: int = 100
    ) -> list[Batch]:
        """What loads, uploads and feeds brought: by their last commit (`before` one), newest first."""
        from tapehouse.client.jobs import trust

        return self._run(trust.Batches(names=reads.listed(names), before=before, limit=limit))

    def undo(self, batch: str) -> Undone:
        """Take back what a batch did, as one transaction that is a batch itself; what others did since stays.

        Raises `NotFound` when there is no such batch, `Conflict` when it is undone already.
        """
        from tapehouse.client.jobs import trust

        return self._run(trust.Undo(batch=batch))

    def certificates(self) -> list[CertificateSummary]:
        """The certificates of loads in short, newest first."""
        from tapehouse.client.jobs import trust

        return self._run(trust.Certificates())

    def certificate(self, batch: str) -> Certificate:
        """What a load read and what the store gave back, with a hash of each series from both."""
        from tapehouse.client.jobs import trust

        return self._run(trust.CertificateOf(batch=batch))

    def certify(self, batch: str) -> Certificate:
        """Compare again what a load read with what the store has; `StoreDamaged` names the symbols that differ."""
        from tapehouse.client.jobs import following, trust

        if isinstance(self._backend, Local):
            return self._backend.certify(batch)
        job = self._run(trust.Certify(batch=batch))
        return following.certificate_of(following.follow(self._run, job))

    def quality(
        self, symbols: Symbols = None, *, kind: str | None = None, interval: str | None = None
    ) -> list[Quality]:
        """What the checks found of each series: a grade from A to F, the counts that made it, and the findings."""
        from tapehouse.client.jobs import trust

        parsed = None if kind is None else reads.kind_of(kind)
        return self._run(trust.Qualities(symbols=reads.listed(symbols), kind=parsed, interval=interval))

    def check_quality(
        self,
        symbols: Symbols = None,
        *,
        kind: str | None = None,
        interval: str | None = None,
        validate: str = "sample",
    ) -> list[Quality]:
        """Look at what is stored anew (`validate`: `full` or `sample`), keep the grades, and return them.

        Through a server it is a job there. Ctrl-C ends it: series that it was done with keep their new grade, the
        others the one they had. Raises `KeyboardInterrupt` then, and `Unavailable` when somebody else cancelled
        the job.
        """
        from tapehouse.client.jobs import following, trust

        asked = trust.assessment(reads.listed(symbols), kind, interval, validate)
        if isinstance(self._backend, Local):
            self._backend.assess(asked)
        else:
            following.follow_whole(self._run, self._run(trust.Assess(asked=asked)))
        return self.quality(symbols, kind=kind, interval=interval)

    def delete(
        self,
        symbols: str | Sequence[str],
        *,
        kind: str = "bars",
        interval: str | None = None,
        start: Time | None = None,
        end: Time | None = None,
    ) -> Commit:
        """Hide all rows of the span as one commit; reads as of before still see them."""
        return self._run(writes.delete(symbols, kind=kind, interval=interval, start=start, end=end))

    def export(
        self,
        folder: str | os.PathLike[str],
        symbols: Symbols = None,
        *,
        existing: str = "refuse",
        threads: int | None = None,
        progress: OnProgress | None = None,
        **choices: Unpack[ExportChoices],
    ) -> Manifest:
        """Write rows to files in a folder of this machine, as of one commit, and a manifest of them.

        Without more it is everything that is stored, as Parquet by symbol. `symbols` and `match` (patterns with `*`
        and `?`) choose symbols, `kind` and `interval` (one, or a list) series; `start`, `end`, `as_of` and `source`
        are those of `bars`, `columns` go into the files beside symbol and timestamp. `resample` makes the bars of an
        interval where they are not stored. `format` is one of `tapehouse.export.base.FORMATS` (`"csv.gz"`),
        `partition` is `"none"`, or `"symbol"`, `"year"`, `"month"`, `"day"`, or `"symbol,month"`.

        `existing` says what to do about an export in the folder: `"refuse"`, `"resume"` one that did not come to its
        end, or `"overwrite"`. Raises `Conflict` when there is one or a file of a name that is needed, `NotFound`
        when there is nothing to export, and `StoreFull` when the disk is full; files that have their names are whole.
        """
        options = export_options(symbols, **choices)
        return export(self._backend, folder, options, existing=existing, threads=threads, progress=progress)

    def instruments(self) -> list[Instrument]:
        """What is known of instruments, by pattern."""
        return self._run(reads.Instruments())

    def put_instruments(self, instruments: Sequence[Instrument]) -> list[Instrument]:
        """Add or replace instruments by pattern; returns all."""
        return self._run(writes.PutInstruments(instruments=tuple(instruments)))

    def commits(self, *, after: int = 0, limit: int = 100) -> list[Commit]:
        """What was written, oldest first."""
        return self._run(reads.Commits(after=after, limit=limit))

    def stats(self) -> dict[str, Any]:
        """Sizes and counts of the store."""
        return self._run(reads.Stats())

    def compact(self, *, everything: bool = False) -> CompactionReport:
        """Move what has settled, or everything, into the archive; a server compacts by itself."""
        return self._run(writes.Compact(everything=everything))

    def close(self) -> None:
        """Close the connections, or the folder; idempotent."""
        self._finalizer.detach()
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def store(self) -> Store | None:
        """The store itself, when this process has it open; None when it is behind a server."""
        return self._backend.store if isinstance(self._backend, Local) else None

    @property
    def is_owner_elsewhere(self) -> bool:
        """Whether the store is a folder that another process of this machine has open."""
        return isinstance(self._backend, Shell) and self._backend.server.socket is not None

    def _run(self, operation: Operation[T]) -> T:
        return self._backend.run(operation)

    def _dated(self, write: writes.Write) -> writes.Write:
        return write.dated(self.instruments()) if write.has_dates else write

    def _frame(self, operation: Operation[Rows], symbols: Symbols, frame: FrameName, capitalize: bool = False) -> Any:
        shape = shape_of(symbols, frame, capitalize)
        return shape.of(self._run(operation))


class FrameStream:
    """Frames, one after the other while the answer arrives; close it, exhaust it, or use it in a `with`."""

    def __init__(self, backend: Shell | Local, operation: reads.Read, shape: Shape) -> None:
        self._shape = shape
        self._open = ExitStack()
        self._arriving = self._open.enter_context(backend.batches(operation))
        self.schema: pa.Schema = self._arriving.schema
        self.commit = self._arriving.commit
        self.made_from = self._arriving.made_from

    def __iter__(self) -> Iterator[Any]:
        with self:
            for batch in self._arriving.batches:
                table = pa.Table.from_batches([batch])
                yield self._shape.of(Rows(table=table, commit=self.commit, made_from=self.made_from))

    def close(self) -> None:
        """Let go of the answer; idempotent."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._open.__exit__(kind, error, tb)
