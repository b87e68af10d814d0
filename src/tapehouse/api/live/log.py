"""`/v1/log`: what the log holds, and how far everyone has come with it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from tapehouse.api.context import Here
from tapehouse.api.formats import answer_json
from tapehouse.api.keys import Scope
from tapehouse.api.live.parts import Live, live_of
from tapehouse.api.problems import documented
from tapehouse.api.security import needs
from tapehouse.model import Position
from tapehouse.times import format_time

router = APIRouter(prefix="/v1", tags=["live"], dependencies=[needs(Scope.READ)])

_LOG: dict[str, Any] = {
    "survives": "machine",
    "partitions": [{"partition": 0, "epoch": 1704205800000, "oldest": 0, "next": 18, "bytes": 40_960, "since": None}],
    "groups": [{"group": "record", "partition": 0, "epoch": 1704205800000, "offset": 17, "lag": 0}],
    "record": {"rows": 40, "commits": 3, "set_aside": 0, "lost": 0, "error": None},
    "stream": {"clients": 2, "live": 2, "catching_up": 0, "delivered": 80, "lag_s": 0.001},
}


@router.get("/log", responses=documented(401, 403, 501, 503, example=_LOG), summary="The log")
async def log(request: Request, here: Here) -> Response:
    """What the log holds, how far each group of its readers has come, and what the live half of this server does."""
    live = live_of(request)
    return answer_json(await here.workers.query.run(lambda: _described(live), request=request))


def _described(live: Live) -> dict[str, Any]:
    ends = {partition: live.bus.ends(partition) for partition in range(live.bus.partitions)}
    positions = {name: live.bus.committed(name).positions for name in live.bus.groups()}
    described: dict[str, Any] = {"survives": live.bus.survives, "counts": dict(live.ingest.counts())}
    if live.records is not None:
        progress = live.records.progress()
        positions["record"] = progress.positions
        described["record"] = {
            "rows": progress.rows, "commits": progress.commits, "set_aside": progress.set_aside,
            "lost": progress.lost, "error": progress.error,
        }  # fmt: skip
    if live.streams is not None:
        described["stream"] = dict(live.streams.stats())
    described["partitions"] = [
        {
            "partition": partition, "epoch": end.epochs[-1].epoch, "oldest": end.first, "next": end.next,
            "bytes": end.bytes, "since": None if end.since is None else format_time(end.since),
        }
        for partition, end in ends.items()
    ]  # fmt: skip
    described["groups"] = [
        {"group": name, "partition": partition, **_lag(at, ends[partition].next)}
        for name, held in sorted(positions.items())
        for partition, at in held.items()
        if partition in ends
    ]
    return described


def _lag(at: Position, following: int) -> dict[str, int]:
    return {"epoch": at.epoch, "offset": at.offset, "lag": max(0, following - at.offset - 1)}
