"""A store that this process owns, served to others on this machine by the Unix socket of its folder."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import uvloop

from tapehouse.api.doors import Door
from tapehouse.bulk.base import Description
from tapehouse.errors import InvalidSetting
from tapehouse.jobs.base import Jobs
from tapehouse.server.serving import api_of, loads_of, open_doors, unix_socket
from tapehouse.settings import Settings
from tapehouse.store.base import Store

_STARTS_WITHIN_S = 30.0


class Background:
    """A store served by its Unix socket from a thread of this process, until `close`."""

    def __init__(
        self, store: Store, socket_path: Path, settings: Settings, formats: Sequence[Description] = ()
    ) -> None:
        self._ready = threading.Event()
        self._stop: Callable[[], object] | None = None
        self._interrupt: Callable[[], object] = lambda: None
        self._jobs: Jobs | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._run, args=(store, socket_path, settings, formats), name="tapehouse-server", daemon=True
        )
        self._thread.start()
        if not self._ready.wait(_STARTS_WITHIN_S):
            raise InvalidSetting(f"the socket {socket_path} was not served within {_STARTS_WITHIN_S:g} s")
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Let the jobs of others come to their end, answer what has come in, then stop; the store stays open.

        Idempotent. Ctrl-C asks the jobs to end after their current step.
        """
        stop, self._stop = self._stop, None
        if stop is not None and self._thread.is_alive():
            stop()
        try:
            self._thread.join()
        except KeyboardInterrupt:
            self._interrupt()
            self._thread.join()
            raise

    @property
    def busy(self) -> bool:
        """Whether jobs run or wait."""
        return self._jobs is not None and any(not job.state.is_over for job in self._jobs.jobs())

    def _run(self, *given: Any) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve(*given))
        except BaseException as exc:  # noqa: BLE001 - raised again in the thread that waits for the start
            self._error = exc
        finally:
            self._ready.set()

    async def _serve(self, store: Store, socket_path: Path, settings: Settings, formats: Sequence[Description]) -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            loads = await stack.enter_async_context(loads_of(store, settings, formats))
            self._interrupt = loads.jobs.stop
            self._jobs = loads.jobs
            api = api_of(store, settings, None, loads)
            stack.push_async_callback(asyncio.to_thread, api.close)
            door = Door(api.over_socket, settings, stack.enter_context(unix_socket(socket_path)))
            await stack.enter_async_context(open_doors([door]))
            self._stop = lambda: loop.call_soon_threadsafe(stopping.set)
            self._ready.set()
            await stopping.wait()
            await asyncio.to_thread(loads.jobs.close)


def start_in_thread(
    store: Store, socket_path: Path, settings: Settings | None = None, formats: Sequence[Description] = ()
) -> Background:
    """Serve a store that this process owns to others on this machine, by the Unix socket of its folder only.

    Loads know the layouts `formats` beside those that are built in.
    """
    return Background(store, socket_path, settings or Settings(), formats)
