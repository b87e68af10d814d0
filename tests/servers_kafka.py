"""Brokers of Apache Kafka as real processes: one that all tests share, and ones that a test may kill."""

from __future__ import annotations

import base64
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".kafka"
START_S = 60.0
POLL_S = 0.05
LIVES_S = 3_600
"""A broker ends by itself then, should whoever started it be killed before it could."""
JAVA = (
    "java",
    "-Xmx400m",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
)

PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=BROKER://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=BROKER://127.0.0.1:{advertised},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=BROKER
log.dirs={data}
num.network.threads=2
num.io.threads=4
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
broker.heartbeat.interval.ms=100
broker.session.timeout.ms=1000
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
auto.create.topics.enable=false
log.cleaner.dedupe.buffer.size=8388608
"""


class Broker:
    """A broker with its data in a folder; `advertised` is the port that clients are sent to, if it is another."""

    def __init__(self, folder: Path, advertised: int | None = None) -> None:
        self.folder = folder
        self.port, self._controller = free_ports(2)
        self._advertised = advertised or self.port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._advertised}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, on what its folder has, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        properties = self.folder / "server.properties"
        properties.write_text(
            PROPERTIES.format(
                port=self.port, controller=self._controller, advertised=self._advertised, data=self.folder / "data"
            )
        )
        if not (self.folder / "data").exists():
            self._format(properties)
        with (self.folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_timed(), *_java(), "kafka.Kafka", properties],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.kill()
                pytest.fail(f"Kafka did not start: {(self.folder / 'broker.log').read_text()[-2_000:]}")
            time.sleep(POLL_S)

    def _format(self, properties: Path) -> None:
        # An "A" first, since a name that begins with "-" is taken for an option.
        name = base64.urlsafe_b64encode(b"\0" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
        command = [*_java(), "kafka.tools.StorageTool", "format", "--standalone", "-t", name, "-c", str(properties)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_S, check=False)
        assert done.returncode == 0, done.stderr

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL, as when the machine's memory is full; idempotent."""
        if self._process is not None:
            end_session(self._process.pid)
            self._process.wait(START_S)
            self._process = None

    def wipe(self) -> None:
        """Remove what it has, while it is not running."""
        shutil.rmtree(self.folder / "data")


def _timed() -> list[str]:
    return ["timeout", "--signal=KILL", str(LIVES_S)]


def _java() -> list[str]:
    return [*JAVA, "-cp", f"{fetched()}/*"]


def end_session(pid: int) -> None:
    """Kill the process and what it started, if they are still there."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def fetched() -> Path:
    """The folder of the broker's program, fetched if need be."""
    done = subprocess.run([ROOT / "tools" / "kafka.sh"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"Maven could not fetch Kafka: {(done.stdout + done.stderr)[-500:]}")
    return CACHE / "lib"


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens at; all are held until all are found."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    try:
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


class _Shared:
    """One broker for all processes of a test run: the first that asks starts it, the last that leaves stops it."""

    def __init__(self) -> None:
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
        self._folder = Path(tempfile.gettempdir()) / f"tapehouse-kafka-{run}"
        self._using: IO[bytes] | None = None
        self._started: list[Broker] = []

    def enter(self) -> str:
        """Its address; until `leave` it is there."""
        self._folder.mkdir(parents=True, exist_ok=True)
        known = self._folder / "broker"
        with self._locked():
            if self._using is None:
                self._using = (self._folder / "users").open("wb")
                fcntl.flock(self._using, fcntl.LOCK_SH)
            if not known.exists():
                broker = Broker(self._folder / "shared")
                broker.start()
                self._started.append(broker)
                known.write_text(f"{broker.pid} {broker.address}")
            return known.read_text().split()[1]

    def leave(self) -> None:
        """Idempotent."""
        if self._using is None:
            return
        with self._locked(), self._using as using:
            self._using = None
            try:
                fcntl.flock(using, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # others use it
            known = self._folder / "broker"
            if known.exists():
                end_session(int(known.read_text().split()[0]))
            for broker in self._started:
                broker.kill()
            shutil.rmtree(self._folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        while True:
            with (self._folder / "lock").open("wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if (self._folder / "lock").exists():
                    yield
                    return
            self._folder.mkdir(parents=True, exist_ok=True)  # the last one removed it meanwhile


_SHARED = _Shared()


def shared_broker() -> str:
    """The address of the broker that all tests share; each takes a topic of its own."""
    return _SHARED.enter()


def pytest_sessionfinish() -> None:
    _SHARED.leave()


class Proxy:
    """What clients connect to in place of a broker, so that a test can cut them off. Thread-safe."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.target = 0
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._refuses = False
        self._cut_when: Callable[[bytes], bool] | None = None
        self._deaf_when: Callable[[bytes], bool] | None = None
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refuses:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._pairs.append((client, server))
            for source, sink, outward in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pump, args=(source, sink, outward), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, outward: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                if outward and self._cut_when is not None and self._cut_when(data):
                    break
                deaf = outward and self._deaf_when is not None and self._deaf_when(data)
                if deaf:
                    source.shutdown(socket.SHUT_WR)  # before there can be an answer
                sink.sendall(data)
                if deaf:
                    break
        except OSError:
            pass
        finally:
            for each in (source, sink):
                _hang_up(each)
            if self._refuses:
                self.refuse()

    def cut_before(self, text: bytes, *, for_good: bool = False) -> None:
        """Hang up, once or for good, in place of passing on what has this text."""
        self._cut_when = self._once(text, for_good)

    def cut_after(self, text: bytes, *, for_good: bool = False) -> None:
        """Hang up, once or for good, after passing on what has this text and before the answer."""
        self._deaf_when = self._once(text, for_good)

    def _once(self, text: bytes, for_good: bool) -> Callable[[bytes], bool]:
        def met(data: bytes) -> bool:
            if text not in data:
                return False
            self._cut_when = self._deaf_when = None
            self.cuts += 1
            self._refuses = for_good
            return True

        return met

    def refuse(self) -> None:
        """Hang up on all, and let nobody in."""
        self._refuses = True
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for each in pair:
                _hang_up(each)

    def mend(self) -> None:
        """Let everybody in again."""
        self._refuses, self._cut_when, self._deaf_when = False, None, None

    def close(self) -> None:
        self.refuse()
        self._listener.close()


def _hang_up(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is closed already
    finally:
        end.close()
