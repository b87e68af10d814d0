"""The log in Redis: servers that die, come back, come back empty or full, fail over, and connections that are cut."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.buses import entry, fill, prices
from tests.servers_kafka import Proxy
from tests.servers_redis import LIMIT_S, RedisServer, cluster, server

from tapehouse.bus.base import Lost, Retention, Survives
from tapehouse.errors import InvalidSetting, LogFull, Unavailable, Unsettled
from tapehouse.model import Position

pytestmark = pytest.mark.redis


def opened(running: RedisServer, **options: Any) -> Any:
    from tapehouse.bus.redis import RedisBus

    return RedisBus(running.url, **{"partitions": 1, "timeout_s": 2.0, **options})


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RedisServer]:
    with server(tmp_path / "redis") as one:
        yield one


def test_a_server_that_was_killed_has_what_it_acknowledged(running: RedisServer) -> None:
    bus = opened(running)
    positions = [bus.append(0, [entry(n)])[0] for n in range(10)]
    assert bus.survives is Survives.MACHINE
    running.kill()
    with pytest.raises((Unavailable, Unsettled)):
        bus.append(0, [entry(99)])
    with pytest.raises(Unavailable):
        bus.read(0, None)
    running.start()
    assert prices(bus) == list(range(10))
    (at,) = bus.append(0, [entry(10)])
    assert at.epoch > positions[0].epoch, "nobody knows that nothing was lost"
    piece = bus.read(0, positions[4])
    assert piece.lost is None, "but this reader has lost nothing"
    assert [one.position.offset for one in piece.entries] == [5, 6, 7, 8, 9, 10]
    assert {one.position.epoch for one in piece.entries} == {positions[0].epoch, at.epoch}
    bus.close()


def test_a_server_that_comes_back_empty_begins_a_new_epoch(running: RedisServer, tmp_path: Path) -> None:
    bus = opened(running)
    (before,) = bus.append(0, [entry(1)])
    running.kill()
    for path in (tmp_path / "redis").rglob("*"):
        if path.is_file():
            path.unlink()
    running.start()
    (at,) = bus.append(0, [entry(2)])
    assert (at.offset, at.epoch > before.epoch) == (0, True)
    assert bus.read(0, before).lost == Lost(after=before, first=at)
    bus.close()


def test_a_log_that_is_flushed_is_noticed_by_who_only_reads(running: RedisServer) -> None:
    bus, reader = opened(running), opened(running)
    positions = [bus.append(0, [entry(n)])[0] for n in range(3)]
    assert prices(reader) == [0, 1, 2]
    bus._server.client.flushall()
    lost = reader.read(0, positions[2]).lost
    assert lost is not None
    assert lost.first.epoch > positions[2].epoch
    (at,) = bus.append(0, [entry(7)])
    assert at == lost.first
    assert prices(reader, Position(at.epoch, -1)) == [7]
    for each in (bus, reader):
        each.close()


def test_an_answer_that_never_came_is_unsettled(running: RedisServer) -> None:
    proxy = Proxy()
    proxy.target = running.port
    from tapehouse.bus.redis import RedisBus

    bus = RedisBus(f"redis://127.0.0.1:{proxy.port}/0", partitions=1, timeout_s=2.0)
    bus.append(0, [entry(1)])
    proxy.cut_after(b"EVALSHA")
    with pytest.raises(Unsettled):
        bus.append(0, [entry(2)])
    proxy.mend()
    bus.append(0, [entry(3)])
    assert prices(bus) == [1, 2, 3], "it was taken, and once"
    bus.close()
    proxy.close()


def test_connections_that_are_cut_are_made_again(running: RedisServer) -> None:
    bus = opened(running)
    bus.append(0, [entry(1)])
    with_admin = opened(running)
    with_admin._server.client.execute_command("CLIENT", "KILL", "TYPE", "normal")
    taken = []
    for number in range(2, 6):
        try:
            bus.append(0, [entry(number)])
            taken.append(float(number))
        except (Unavailable, Unsettled):
            continue
    assert taken
    assert prices(bus)[-len(taken) :] == taken
    for each in (bus, with_admin):
        each.close()


def test_a_server_without_memory_takes_nothing(tmp_path: Path) -> None:
    with server(tmp_path / "redis", "--maxmemory", "4mb", "--maxmemory-policy", "noeviction") as small:
        bus = opened(small)
        taken = list(fill(bus))
        assert len(taken) > 50
        assert bus.ends(0).next == len(taken)
        with pytest.raises(LogFull, match="OOM"):
            bus.append(0, [entry(*[1] * 100)])
        bus.trim(Retention(bytes=1_000_000), {})
        bus.close()


def test_two_members_share_and_one_takes_over(running: RedisServer) -> None:
    bus = opened(running, partitions=4, member_s=0.5)
    one, other = bus.join("record"), bus.join("record")
    assert one.partitions() == frozenset(range(4))
    until = time.monotonic() + LIMIT_S
    while len(other.partitions()) < 2:
        one.partitions()
        assert time.monotonic() < until
    held = one.partitions(), other.partitions()
    assert (len(held[0]), len(held[1]), held[0] & held[1]) == (2, 2, frozenset())
    while len(other.partitions()) < 4:  # the first is never asked again
        assert time.monotonic() < until
        time.sleep(0.05)
    other.leave()
    assert other.partitions() == frozenset()
    assert bus.join("record").partitions() == frozenset(range(4))
    bus.close()


def test_no_partition_is_ever_two_members(running: RedisServer) -> None:
    bus = opened(running, partitions=6, member_s=5.0)
    members = [bus.join("derive") for _ in range(3)]
    held: dict[int, frozenset[int]] = {}
    wrong: list[Any] = []
    lock = threading.Lock()

    def ask(number: int) -> None:
        for _ in range(40):
            with lock:
                held[number] = members[number].partitions()
                everyone = [each for part in held.values() for each in part]
                if len(everyone) != len(set(everyone)):
                    wrong.append(dict(held))

    asking = [threading.Thread(target=ask, args=(n,)) for n in range(3)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert not wrong
    assert sorted(each for part in held.values() for each in part) == list(range(6))
    bus.close()


def test_a_log_keeps_the_partitions_it_was_made_with(running: RedisServer) -> None:
    first, second = opened(running, partitions=3), opened(running, partitions=5)
    assert (first.partitions, second.partitions) == (3, 3)
    with pytest.raises(InvalidSetting):
        opened(running, partitions=0)
    for bus in (first, second):
        bus.close()


def test_what_cannot_be_used_is_told_without_the_password(tmp_path: Path, running: RedisServer) -> None:
    from tapehouse.bus.redis import RedisBus

    with pytest.raises(Unavailable, match="cannot be reached"):
        RedisBus("redis://:secret@127.0.0.1:1/0", timeout_s=1.0)
    with server(tmp_path / "locked", "--requirepass", "other") as locked, pytest.raises(Unavailable) as refused:
        RedisBus(f"redis://:secret@127.0.0.1:{locked.port}/0", timeout_s=1.0)
    assert "secret" not in str(refused.value)


def test_what_survives_is_what_the_server_was_told(tmp_path: Path) -> None:
    for options, expected in (
        (("--appendonly", "yes", "--appendfsync", "everysec"), Survives.PROCESS),
        (("--appendonly", "no"), Survives.NOTHING),
    ):
        with server(tmp_path / expected, *options) as running:
            bus = opened(running)
            assert bus.survives is expected
            bus.close()


def test_a_failover_that_lost_entries_raises_the_epoch(tmp_path: Path) -> None:
    """The replica is stopped before the last entries, and takes over without them."""
    import redis

    from tapehouse.bus.redis import RedisClusterBus

    with cluster(tmp_path) as nodes:
        bus = RedisClusterBus(f"redis+cluster://127.0.0.1:{nodes[0].port}", partitions=1, timeout_s=2.0)
        kept = [bus.append(0, [entry(n)])[0] for n in range(5)]
        log, _ = bus._keys(0)
        master = next(node for node in nodes if node.port == bus._server.client.get_node_from_key(log).port)
        with redis.Redis(port=master.port) as client:
            client.execute_command("WAIT", 1, 5_000)
            (slave,) = client.execute_command("ROLE")[2]
        replica = next(node for node in nodes if node.port == int(slave[1]))
        replica.process.send_signal(signal.SIGSTOP)
        with redis.Redis(port=master.port) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")  # nothing is on the way to it
        gone = [bus.append(0, [entry(n)])[0] for n in range(5, 8)]
        master.kill()
        replica.process.send_signal(signal.SIGCONT)
        end = time.monotonic() + LIMIT_S
        while True:
            try:
                (at,) = bus.append(0, [entry(100)])
                break
            except (Unavailable, Unsettled):
                assert time.monotonic() < end
                time.sleep(0.1)
        assert at.epoch > gone[0].epoch
        assert at.offset <= gone[-1].offset, "numbers of lost entries are given again"
        behind = bus.read(0, kept[1])
        assert behind.lost is None
        assert prices(bus, kept[1])[:3] == [2, 3, 4]
        beyond = bus.read(0, gone[-1])
        assert beyond.lost is not None
        assert beyond.lost.first.epoch == at.epoch
        assert 100 in prices(bus, gone[-1])
        bus.close()
