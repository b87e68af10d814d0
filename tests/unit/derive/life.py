"""A program that the kill tests run: it feeds trades, records them and derives bars, all in a folder.

python -m tests.unit.derive.life FOLDER LAST
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from tests.contract.stores import T0, trade, trades

from tapehouse.bus.sqlite import SQLiteBus
from tapehouse.derive import deriver
from tapehouse.ingest.base import Arrival
from tapehouse.ingest.desk import Desk
from tapehouse.model import SECOND_NS, Interval, Kind
from tapehouse.record.recorder import Recorder
from tapehouse.store.duckdb import DuckDBStore
from tapehouse.store.tables import conform

ROWS = 20
INTERVALS = (Interval.S1, Interval.M1)


def main(folder: Path, last: int) -> None:
    deriver.SAVE_S = 0.05
    store, bus, stop = DuckDBStore(folder / "data"), SQLiteBus(folder / "log"), threading.Event()
    now = [T0]
    desk = Desk(bus, conform, clock=lambda: now[0])
    recorder = Recorder(bus, store, flush_s=0.02)
    derive = deriver.Deriver(bus, 0, store, recorder, intervals=INTERVALS, flush_s=0.02, clock=lambda: now[0])
    threads = [threading.Thread(target=one.run, args=(stop,)) for one in (recorder, derive)]
    for thread in threads:
        thread.start()
    sent = next((source.last + 1 for source in desk.sources() if source.last is not None), 0)
    while sent < last:
        now[0] = T0 + sent * SECOND_NS // 20
        rows = trades(
            *(trade(f"S{n % 3}", T0 + (n - n % 7) * SECOND_NS // 20, n % 11 + 0.1) for n in range(sent, sent + ROWS))
        )
        desk.take(Arrival(kind=Kind.TRADES, table=rows, source="feed", sequence=sent))
        sent += ROWS
        stop.wait(0.01)
    now[0] += 3_600 * SECOND_NS
    stop.wait(0.5)
    recorder.wait(0, bus.ends(0).last, 30)
    stop.set()
    for thread in threads:
        thread.join()
    bus.close()
    store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
