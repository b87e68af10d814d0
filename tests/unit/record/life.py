"""A program that the kill tests run: it feeds numbered trades to the log and records them, both in a folder.

python -m tests.unit.record.life FOLDER LAST
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from tests.contract.stores import T0, trade, trades

from tapehouse.bus.sqlite import SQLiteBus
from tapehouse.ingest.base import Arrival
from tapehouse.ingest.desk import Desk
from tapehouse.model import Kind
from tapehouse.record.recorder import Recorder
from tapehouse.store.duckdb import DuckDBStore
from tapehouse.store.tables import conform

ROWS = 20


def main(folder: Path, last: int) -> None:
    store = DuckDBStore(folder / "data")
    bus = SQLiteBus(folder / "log")
    desk = Desk(bus, conform, clock=lambda: T0)
    stop = threading.Event()
    recorder = Recorder(bus, store, flush_rows=100, flush_s=0.02)
    recording = threading.Thread(target=recorder.run, args=(stop,))
    recording.start()
    sent = next((source.last + 1 for source in desk.sources() if source.last is not None), 0)
    while sent < last:
        rows = trades(*(trade(f"S{n % 5}", T0 + n // 3, n) for n in range(sent, sent + ROWS)))
        receipt = desk.take(Arrival(kind=Kind.TRADES, table=rows, source="feed", sequence=sent))
        sent = receipt.next or 0
    recorder.wait(0, bus.ends(0).last, 30)
    stop.set()
    recording.join()
    bus.close()
    store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
