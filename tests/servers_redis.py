"""Real Redis servers and clusters for tests, on free ports, with their data in a temporary folder."""

from __future__ import annotations

import atexit
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis

LIMIT_S = 30.0


def free_port() -> int:
    """A port that nobody has, nor the one that a cluster's bus would have."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port < 55_000:
            return port


@dataclass
class RedisServer:
    """One `redis-server`; what it is told beside the defaults are `options`."""

    folder: Path
    options: tuple[str, ...] = ("--appendonly", "yes", "--appendfsync", "always")
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Start it, on the same port each time, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["redis-server", "--port", str(self.port), "--dir", str(self.folder), "--save", "", *self.options]
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + LIMIT_S
        while True:
            try:
                with redis.Redis(port=self.port) as client:
                    client.ping()
                    return
            except redis.AuthenticationError:
                return  # it answers, though not us
            except (redis.ConnectionError, redis.exceptions.BusyLoadingError):
                assert time.monotonic() < end, (self.folder / "redis.log").read_text()
                time.sleep(0.02)

    def kill(self, how: int = signal.SIGKILL) -> None:
        """Have it die."""
        self.process.send_signal(how)
        self.process.wait(LIMIT_S)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


@contextmanager
def server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """A server, stopped at the end."""
    running = RedisServer(folder, *((options,) if options else ()))
    running.start()
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.kill()


@contextmanager
def cluster(folder: Path, masters: int = 3, replicas: int = 1) -> Iterator[list[RedisServer]]:
    """A cluster: the masters first, then their replicas."""
    options = (
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        "700",
        "--appendonly",
        "no",
        "--repl-diskless-sync-delay",
        "0",
    )
    nodes = [RedisServer(folder / f"node-{n}", options) for n in range(masters * (1 + replicas))]
    try:
        for node in nodes:
            node.start()
        addresses = [f"127.0.0.1:{node.port}" for node in nodes]
        made = ["redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", str(replicas), "--cluster-yes"]
        subprocess.run(made, check=True, capture_output=True, timeout=LIMIT_S)
        _await_cluster(nodes, masters * replicas)
        yield nodes
    finally:
        for node in nodes:
            if hasattr(node, "process") and node.process.poll() is None:
                node.kill()


_shared: list[str] = []


def shared_cluster() -> str:
    """The URL of a cluster that all tests of this process share, stopped when the process ends."""
    if not _shared:
        folder = tempfile.TemporaryDirectory(prefix="tapehouse-redis-", ignore_cleanup_errors=True)
        running = cluster(Path(folder.name))
        nodes = running.__enter__()
        atexit.register(folder.cleanup)
        atexit.register(running.__exit__, None, None, None)
        _shared.append(f"redis+cluster://127.0.0.1:{nodes[0].port}")
    return _shared[0]


def _await_cluster(nodes: list[RedisServer], replicas: int) -> None:
    """Until every node knows that all is well, and every replica has its master's data."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        states = []
        for node in nodes:
            with redis.Redis(port=node.port, decode_responses=True) as client:
                states.append((client.cluster("info")["cluster_state"], client.info("replication")))
        linked = sum(info.get("master_link_status") == "up" for _, info in states)
        if all(state == "ok" for state, _ in states) and linked == replicas:
            return
        time.sleep(0.05)
    raise AssertionError("the cluster did not form")
