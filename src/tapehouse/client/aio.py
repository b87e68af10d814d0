"""The client for programs that run on an event loop. The methods are those of `Client`, and are described there."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, overload

import pyarrow as pa

from tapehouse.client import reads, writes
from tapehouse.client.arrow import Arriving, Rows
from tapehouse.client.embedded import AsyncLocal, export, files_below, reach
from tapehouse.client.frames import FrameName, Page, Shape, shape_of
from tapehouse.client.http import AsyncShell, Server, Shell
from tapehouse.client.live.following import Delivery, Following
from tapehouse.client.live.streams import AsyncStream, serving
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
from tapehouse.model import Commit, Instrument, Kind
from tapehouse.query.base import Coverage
from tapehouse.store.base import Batch, CompactionReport, Undone

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from tapehouse.bulk.base import Certificate, LoadOptions, LoadReport, RecognisedFile
    from tapehouse.bulk.base import OnProgress as OnLoadProgress
    from tapehouse.bulk.checks.base import Quality
    from tapehouse.client.jobs.trust import CertificateSummary
    from tapehouse.jobs.base import Job

T = TypeVar("T")


class AsyncClient:
    """`Client` for an event loop: the same methods, awaited. It connects, or opens the folder, when first used."""

    def __init__(
        self,
        where: str | os.PathLike[str] | None = None,
        *,
        key: str | None = None,
        timeout_s: float = 60.0,
        create: bool = False,
    ) -> None:
        self._reach = partial(reach, where, key=key, timeout_s=timeout_s, create=create)
        self._backend: AsyncShell | AsyncLocal | None = None
        self._connecting = asyncio.Lock()

    @overload
    async def bars(
        self, symbols: Symbols, *, frame: Literal["polars"] = ..., capitalize: bool = ..., **options: Unpack[BarOptions]
    ) -> pl.DataFrame: ...
    @overload
    async def bars(
        self, symbols: Symbols, *, frame: Literal["pandas"], capitalize: bool = ..., **options: Unpack[BarOptions]
    ) -> pd.DataFrame: ...
    @overload
    async def bars(
        self, symbols: Symbols, *, frame: Literal["arrow"], capitalize: bool = ..., **options: Unpack[BarOptions]
    ) -> pa.Table: ...
    async def bars(
        self, symbols: Symbols, *, frame: FrameName = "polars", capitalize: bool = False, **options: Unpack[BarOptions]
    ) -> Any:
        return await self._frame(reads.bars(symbols, options), symbols, frame, capitalize)

    @overload
    async def trades(
        self, symbols: Symbols, *, frame: Literal["polars"] = ..., **options: Unpack[ReadOptions]
    ) -> pl.DataFrame: ...
    @overload
    async def trades(
        self, symbols: Symbols, *, frame: Literal["pandas"], **options: Unpack[ReadOptions]
    ) -> pd.DataFrame: ...
    @overload
    async def trades(
        self, symbols: Symbols, *, frame: Literal["arrow"], **options: Unpack[ReadOptions]
    ) -> pa.Table: ...
    async def trades(self, symbols: Symbols, *, frame: FrameName = "polars", **options: Unpack[ReadOptions]) -> Any:
        return await self._frame(reads.read(Kind.TRADES, symbols, **options), symbols, frame)

    @overload
    async def quotes(
        self, symbols: Symbols, *, frame: Literal["polars"] = ..., **options: Unpack[ReadOptions]
    ) -> pl.DataFrame: ...
    @overload
    async def quotes(
        self, symbols: Symbols, *, frame: Literal["pandas"], **options: Unpack[ReadOptions]
    ) -> pd.DataFrame: ...
    @overload
    async def quotes(
        self, symbols: Symbols, *, frame: Literal["arrow"], **options: Unpack[ReadOptions]
    ) -> pa.Table: ...
    async def quotes(self, symbols: Symbols, *, frame: FrameName = "polars", **options: Unpack[ReadOptions]) -> Any:
        return await self._frame(reads.read(Kind.QUOTES, symbols, **options), symbols, frame)

    async def bars_page(
        self,
        symbols: Symbols,
        *,
        page: str | None = None,
        frame: FrameName = "polars",
        capitalize: bool = False,
        **options: Unpack[BarOptions],
    ) -> Page:
        shape = shape_of(symbols, frame, capitalize)
        return await asyncio.to_thread(shape.page, await self._run(reads.bars(symbols, options, page=page)))

    def stream_bars(
        self,
        symbols: Symbols,
        *,
        frame: FrameName = "polars",
        capitalize: bool = False,
        **options: Unpack[BarOptions],
    ) -> AsyncFrameStream:
        """As `Client.stream_bars`; enter it (`async with`) to know its commit, or iterate it right away."""
        return AsyncFrameStream(self._connected, reads.bars(symbols, options), shape_of(symbols, frame, capitalize))

    def stream(
        self,
        channels: str | Sequence[str],
        symbols: str | Sequence[str],
        *,
        start: Time | None = None,
        delivery: Delivery = "lossless",
        interval_ms: int | None = None,
    ) -> AsyncStream:
        """`async for event in client.stream("trades", ["AAPL"])`: see `Client.stream`."""
        following = Following(channels, symbols, start=start, delivery=delivery, interval_ms=interval_ms)
        return AsyncStream(self._serving, following)

    async def _serving(self) -> Server:
        return serving(await self._connected())

    @overload
    async def latest(
        self, symbols: Symbols = ..., *, kind: str = ..., interval: str | None = ..., frame: Literal["polars"] = ...
    ) -> pl.DataFrame: ...
    @overload
    async def latest(
        self, symbols: Symbols = ..., *, kind: str = ..., interval: str | None = ..., frame: Literal["pandas"]
    ) -> pd.DataFrame: ...
    @overload
    async def latest(
        self, symbols: Symbols = ..., *, kind: str = ..., interval: str | None = ..., frame: Literal["arrow"]
    ) -> pa.Table: ...
    async def latest(
        self,
        symbols: Symbols = None,
        *,
        kind: str = "bars",
        interval: str | None = None,
        frame: FrameName = "polars",
    ) -> Any:
        return await self._frame(reads.latest(symbols, kind, interval), symbols, frame)

    @overload
    async def aggregate(
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
    async def aggregate(
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
    async def aggregate(
        self,
        symbols: Symbols,
        *,
        bucket: str,
        measures: Sequence[str] = ...,
        groups: Mapping[str, Sequence[str]] | None = ...,
        frame: Literal["arrow"],
        **options: Unpack[AggregateOptions],
    ) -> pa.Table: ...
    async def aggregate(
        self,
        symbols: Symbols,
        *,
        bucket: str,
        measures: Sequence[str] = DEFAULT_MEASURES,
        groups: Mapping[str, Sequence[str]] | None = None,
        frame: FrameName = "polars",
        **options: Unpack[AggregateOptions],
    ) -> Any:
        return await self._frame(reads.aggregate(symbols, bucket, measures, groups, options), symbols, frame)

    async def symbols(self, match: str | None = None) -> list[str]:
        return await self._run(reads.SymbolList(match=match))

    async def coverage(
        self, symbols: Symbols = None, *, kind: str | None = None, interval: str | None = None, spans: int = 100
    ) -> list[Coverage]:
        return await self._run(reads.coverage(symbols, kind, interval, spans))

    async def upload(
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
        write = partial(writes.write, kind=kind, interval=interval, symbol=symbol, tz=tz, source=source)
        made = await asyncio.to_thread(write, frame, on_conflict=on_conflict, prefer=prefer, batch=batch)
        return await self._run(await self._dated(made))

    async def upload_parts(self, frame: Any, *, rows: int = 1_000_000, **options: Any) -> list[Commit]:
        whole = await self._dated(await asyncio.to_thread(partial(writes.write, frame, **options)))
        return [await self._run(part) for part in writes.parts(whole, rows)]

    async def load(
        self,
        what: Any,
        *,
        validate: str = "sample",
        progress: OnLoadProgress | None = None,
        files: Sequence[RecognisedFile] | None = None,
        quarantine_dir: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> LoadReport:
        from tapehouse.client.jobs import loading

        chosen = loading.options_of(options)
        if (paths := loading.paths_of(what)) is None:
            made = await self._dated(await asyncio.to_thread(loading.frame_of, what, chosen))
            with loading.as_file(made.table, chosen) as (paths, left):
                return await self._load(paths, left, validate, progress)
        return await self._load(paths, chosen, validate, progress, files=files, quarantine_dir=quarantine_dir)

    async def _load(
        self, paths: list[str], options: LoadOptions, validate: str, progress: OnLoadProgress | None, **how: Any
    ) -> LoadReport:
        from tapehouse.client.jobs import following, loading

        backend = await self._connected()
        if isinstance(backend, AsyncLocal):
            return await backend.load(paths, options, validate, progress=progress, **how)
        here = backend.server.socket is not None
        plan = partial(loading.job_of, paths, options, validate, progress, here=here, files=files_below)
        job = await self._run(await asyncio.to_thread(plan))
        return following.report_of(await following.follow_async(self._run, job, progress))

    async def jobs(self, *, limit: int = 100) -> list[Job]:
        from tapehouse.client.jobs import operations

        return await self._run(operations.ListJobs(limit=limit))

    async def job(self, id: str) -> Job:
        from tapehouse.client.jobs import operations

        return await self._run(operations.AskJob(id=id))

    async def cancel_job(self, id: str) -> Job:
        from tapehouse.client.jobs import operations

        return await self._run(operations.CancelJob(id=id))

    async def batches(
        self, names: str | Sequence[str] | None = None, *, before: int | None = None, limit: int = 100
    ) -> list[Batch]:
        from tapehouse.client.jobs import trust

        return await self._run(trust.Batches(names=reads.listed(names), before=before, limit=limit))

    async def undo(self, batch: str) -> Undone:
        from tapehouse.client.jobs import trust

        return await self._run(trust.Undo(batch=batch))

    async def certificates(self) -> list[CertificateSummary]:
        from tapehouse.client.jobs import trust

        return await self._run(trust.Certificates())

    async def certificate(self, batch: str) -> Certificate:
        from tapehouse.client.jobs import trust

        return await self._run(trust.CertificateOf(batch=batch))

    async def certify(self, batch: str) -> Certificate:
        from tapehouse.client.jobs import following, trust

        backend = await self._connected()
        if isinstance(backend, AsyncLocal):
            return await backend.certify(batch)
        job = await self._run(trust.Certify(batch=batch))
        return following.certificate_of(await following.follow_async(self._run, job))

    async def quality(
        self, symbols: Symbols = None, *, kind: str | None = None, interval: str | None = None
    ) -> list[Quality]:
        from tapehouse.client.jobs import trust

        parsed = None if kind is None else reads.kind_of(kind)
        return await self._run(trust.Qualities(symbols=reads.listed(symbols), kind=parsed, interval=interval))

    async def check_quality(
        self,
        symbols: Symbols = None,
        *,
        kind: str | None = None,
        interval: str | None = None,
        validate: str = "sample",
    ) -> list[Quality]:
        from tapehouse.client.jobs import following, trust

        asked = trust.assessment(reads.listed(symbols), kind, interval, validate)
        backend = await self._connected()
        if isinstance(backend, AsyncLocal):
            await backend.assess(asked)
        else:
            job = await self._run(trust.Assess(asked=asked))
            following.check_done(await following.follow_async(self._run, job))
        return await self.quality(symbols, kind=kind, interval=interval)

    async def delete(
        self,
        symbols: str | Sequence[str],
        *,
        kind: str = "bars",
        interval: str | None = None,
        start: Time | None = None,
        end: Time | None = None,
    ) -> Commit:
        return await self._run(writes.delete(symbols, kind=kind, interval=interval, start=start, end=end))

    async def export(
        self,
        folder: str | os.PathLike[str],
        symbols: Symbols = None,
        *,
        existing: str = "refuse",
        threads: int | None = None,
        progress: OnProgress | None = None,
        **choices: Unpack[ExportChoices],
    ) -> Manifest:
        options = export_options(symbols, **choices)
        write = partial(export, folder=folder, options=options, existing=existing, threads=threads, progress=progress)
        backend = (await self._connected()).waiting()
        try:
            return await asyncio.to_thread(write, backend)
        finally:
            if isinstance(backend, Shell):
                backend.close()

    async def instruments(self) -> list[Instrument]:
        return await self._run(reads.Instruments())

    async def put_instruments(self, instruments: Sequence[Instrument]) -> list[Instrument]:
        return await self._run(writes.PutInstruments(instruments=tuple(instruments)))

    async def commits(self, *, after: int = 0, limit: int = 100) -> list[Commit]:
        return await self._run(reads.Commits(after=after, limit=limit))

    async def stats(self) -> dict[str, Any]:
        return await self._run(reads.Stats())

    async def compact(self, *, everything: bool = False) -> CompactionReport:
        return await self._run(writes.Compact(everything=everything))

    async def close(self) -> None:
        """Close the connections, or the folder; idempotent."""
        backend, self._backend = self._backend, None
        if backend is not None:
            await backend.close()

    async def __aenter__(self) -> Self:
        await self._connected()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    async def _connected(self) -> AsyncShell | AsyncLocal:
        async with self._connecting:
            if self._backend is None:
                reached = await asyncio.to_thread(self._reach)
                if isinstance(reached, Server):
                    self._backend = AsyncShell(reached)
                else:
                    self._backend = AsyncLocal(reached)
                    weakref.finalize(self, reached.abandon)
            return self._backend

    async def _run(self, operation: Operation[T]) -> T:
        return await (await self._connected()).run(operation)

    async def _dated(self, write: writes.Write) -> writes.Write:
        if not write.has_dates:
            return write
        return await asyncio.to_thread(write.dated, await self.instruments())

    async def _frame(
        self, operation: Operation[Rows], symbols: Symbols, frame: FrameName, capitalize: bool = False
    ) -> Any:
        shape = shape_of(symbols, frame, capitalize)
        return await asyncio.to_thread(shape.of, await self._run(operation))


class AsyncFrameStream:
    """Frames, one after the other while the answer arrives; close it, exhaust it, or use it in an `async with`."""

    schema: pa.Schema
    commit: int
    made_from: dict[str, tuple[str, ...]]

    def __init__(
        self, connected: Callable[[], Awaitable[AsyncShell | AsyncLocal]], operation: reads.Read, shape: Shape
    ) -> None:
        self._connected = connected
        self._operation = operation
        self._shape = shape
        self._open = AsyncExitStack()
        self._arriving: Arriving[AsyncGenerator[pa.RecordBatch, None]] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        arriving = await self._entered()
        over = True
        try:
            batch = await anext(arriving.batches)
            over = False
        finally:
            if over:
                await self.close()
        rows = Rows(table=pa.Table.from_batches([batch]), commit=self.commit, made_from=self.made_from)
        return await asyncio.to_thread(self._shape.of, rows)

    async def close(self) -> None:
        """Let go of the answer; idempotent."""
        await self._open.aclose()

    async def __aenter__(self) -> Self:
        await self._entered()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._open.__aexit__(kind, error, tb)

    async def _entered(self) -> Arriving[AsyncGenerator[pa.RecordBatch, None]]:
        if self._arriving is None:
            backend = await self._connected()
            self._arriving = await self._open.enter_async_context(backend.batches(self._operation))
            self.commit = self._arriving.commit
            self.made_from = self._arriving.made_from
            self.schema = self._arriving.schema
        return self._arriving
