"""What the routes of live records work with."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import HTTPConnection

from tapehouse.api.context import Context
from tapehouse.bus.base import Bus
from tapehouse.errors import NotSupported
from tapehouse.ingest.base import Ingest
from tapehouse.record.base import Records
from tapehouse.stream.base import Streams


@dataclass
class Live:
    """The live half of a server. `streams` is there once its event loop runs."""

    bus: Bus
    ingest: Ingest
    records: Records | None = None
    streams: Streams | None = None

    @property
    def recorded(self) -> int:
        """See `LiveHalf.recorded`."""
        return 0 if self.records is None else self.records.progress().commits


def live_of(connection: HTTPConnection) -> Live:
    """The live half; `NotSupported` where there is none."""
    here: Context = connection.app.state.context
    if not isinstance(here.live, Live):
        raise NotSupported("this server takes no live records: it was started without a log")
    return here.live
