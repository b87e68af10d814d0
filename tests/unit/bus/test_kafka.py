"""The log in Kafka: brokers that die, lose what they had or are cut off, and several processes at once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.buses import entry, prices
from tests.servers_kafka import Broker, Proxy, free_ports, shared_broker

from tapehouse.bus.base import Committed, Lost, Retention, Survives
from tapehouse.bus.kafka import KafkaBus
from tapehouse.codec.live.entries import table_of
from tapehouse.errors import LimitExceeded, LogDamaged, MissingExtra, Unavailable, Unsettled
from tapehouse.model import Position

pytestmark = pytest.mark.kafka

LIMIT_S = 40.0
POLL_S = 0.02

Opens = Callable[..., KafkaBus]


class Site:
    """A broker of the test's own, reached through a proxy."""

    def __init__(self, folder: Path) -> None:
        self.proxy = Proxy()
        self.broker = Broker(folder, advertised=self.proxy.port)
        self.proxy.target = self.broker.port
        self.broker.start()

    def restart(self) -> None:
        """As after a crash."""
        self.broker.kill()
        self.broker.start()

    def close(self) -> None:
        self.broker.kill()
        self.proxy.close()


@pytest.fixture(scope="module")
def own_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("kafka") / "broker")
    yield site
    site.close()


@pytest.fixture
def site(own_site: Site) -> Site:
    """A broker that the test may do anything to, so long as it runs afterwards."""
    own_site.proxy.mend()
    return own_site


def _opens(address: str) -> Iterator[Opens]:
    buses: list[KafkaBus] = []
    topic = f"log-{uuid.uuid4().hex[:8]}"

    def open_(**options: Any) -> KafkaBus:
        buses.append(KafkaBus(address, topic, **{"partitions": 2, "timeout_s": 3.0, **options}))
        return buses[-1]

    yield open_
    for bus in buses:
        bus.close()


@pytest.fixture
def at_site(site: Site) -> Iterator[Opens]:
    """Opens a log at the test's own broker."""
    yield from _opens(site.broker.address)


@pytest.fixture
def opens() -> Iterator[Opens]:
    """Opens a log at the broker that all tests share."""
    yield from _opens(shared_broker())


def until(describe: str, condition: Callable[[], Any]) -> Any:
    """What the condition returns once that is true, asked again also when there is no answer."""
    end = time.monotonic() + LIMIT_S
    while True:
        try:
            if value := condition():
                return value
        except (Unavailable, Unsettled) as exc:
            describe = f"{describe} ({exc})" if str(exc) not in describe else describe
        if time.monotonic() > end:
            pytest.fail(f"waited {LIMIT_S:.0f} s in vain: {describe}")
        time.sleep(POLL_S)


def topic_of(bus: KafkaBus) -> str:
    return bus._topic


def admin(address: str) -> Any:
    from confluent_kafka.admin import AdminClient

    return AdminClient({"bootstrap.servers": address})


def test_nothing_acknowledged_is_lost_when_the_broker_is_killed(site: Site, at_site: Opens) -> None:
    bus = at_site(timeout_s=1.5)
    positions = [bus.append(0, [entry(number)])[0] for number in range(20)]
    assert prices(bus, positions[9], limit=5) == [10, 11, 12, 13, 14]
    site.broker.kill()
    with pytest.raises((Unavailable, Unsettled)):
        bus.append(0, [entry(99)])
    with pytest.raises(Unavailable):
        bus.append(0, [entry(99)])
    with pytest.raises(Unavailable):
        bus.ends(0)
    site.broker.start()
    until("the broker answers", lambda: bus.ends(0))
    assert prices(bus, positions[14], limit=5) == [15, 16, 17, 18, 19]
    (at,) = until("an append is taken", lambda: bus.append(0, [entry(20)]))
    assert at.epoch == positions[0].epoch
    assert [price for price in prices(bus) if price != 99] == list(range(21))


def test_who_waits_while_the_broker_is_restarted_reads_on(site: Site, at_site: Opens) -> None:
    bus = at_site()
    (at,) = bus.append(0, [entry(1)])
    heard: list[float] = []

    def listen() -> None:
        until("an entry", lambda: heard.extend(prices(bus, at, wait_s=20)) or heard)

    listener = threading.Thread(target=listen)
    listener.start()
    site.restart()
    writer = until("the broker answers", at_site)
    until("an append is taken", lambda: writer.append(0, [entry(2)]))
    listener.join(LIMIT_S)
    assert heard[0] == 2


def test_a_broker_that_comes_back_empty_begins_a_new_epoch(site: Site, at_site: Opens) -> None:
    bus = at_site()
    before = [bus.append(0, [entry(number)])[0] for number in range(5)]
    bus.commit("record", {0: before[4]}, b"state")
    site.broker.kill()
    site.broker.wipe()
    site.broker.start()
    (at,) = until("an append is taken", lambda: bus.append(0, [entry(100)]))
    assert at.offset == 0
    assert at.epoch > before[0].epoch
    piece = bus.read(0, before[4])
    assert piece.lost == Lost(after=before[4], first=at)
    assert [logged.position for logged in piece.entries] == [at]
    assert bus.committed("record") == Committed()
    assert at_site().read(0, None) == (piece.entries, None)


def test_a_log_whose_end_is_gone_goes_on_in_a_new_epoch(site: Site, at_site: Opens, tmp_path: Path) -> None:
    bus = at_site()
    before = [bus.append(0, [entry(number)])[0] for number in range(5)]
    bus.commit("record", {0: before[2]})
    site.broker.kill()
    shutil.copytree(site.broker.folder / "data", tmp_path / "older")
    site.broker.start()
    lost = [until("an append is taken", lambda: bus.append(0, [entry(5)]))[0], bus.append(0, [entry(6)])[0]]
    site.broker.kill()
    site.broker.wipe()
    shutil.copytree(tmp_path / "older", site.broker.folder / "data")
    site.broker.start()
    (at,) = until("an append is taken", lambda: bus.append(0, [entry(7)]))
    assert at.offset == 5
    assert at.epoch > before[0].epoch
    assert bus.read(0, lost[-1]).lost == Lost(after=lost[-1], first=at)
    assert bus.read(0, before[4]).lost is None
    assert prices(at_site(), before[4]) == [7]


def test_a_log_whose_end_went_while_nobody_watched_goes_on_in_a_new_epoch(opens: Opens) -> None:
    bus = opens()
    (at,) = bus.append(0, [entry(1)])
    # What a group had come to before the brokers lost it.
    bus.commit("record", {0: Position(at.epoch, 7)})
    again = opens()
    assert [began.offset for began in again.ends(0).epochs] == [0, 1]
    assert again.read(0, Position(at.epoch, 7)).lost is not None
    assert [began.offset for began in again.ends(1).epochs] == [0]


def test_a_topic_that_is_deleted_and_made_again_is_a_new_epoch(opens: Opens) -> None:
    bus, other = opens(), opens()
    before = [bus.append(0, [entry(number)])[0] for number in range(3)]
    assert prices(other, before[1]) == [2]
    client = admin(shared_broker())
    client.delete_topics([topic_of(bus)], operation_timeout=10)[topic_of(bus)].result()
    (at,) = until("an append is taken", lambda: bus.append(0, [entry(100)]))
    assert at.epoch > before[0].epoch
    assert at.offset == 0
    piece = until("the other hears of it", lambda: other.read(0, before[2], wait_s=1))
    piece = until("the other hears of it", lambda: [p for p in [other.read(0, before[2])] if p.lost])[0]
    assert piece.lost == Lost(after=before[2], first=at)
    assert [began.epoch for began in other.ends(1).epochs] == [at.epoch]


@pytest.mark.parametrize("cut", ["cut_before", "cut_after"])
def test_a_connection_that_is_cut_in_an_append_costs_and_doubles_nothing(site: Site, at_site: Opens, cut: str) -> None:
    bus = at_site(compression="none")
    bus.append(0, [entry(1)])
    getattr(site.proxy, cut)(b"XCUTX")
    positions = bus.append(0, [entry(2, symbol="XCUTX"), entry(3)])
    assert site.proxy.cuts > 0
    assert [at.offset for at in positions] == [1, 2]
    bus.append(0, [entry(4)])
    assert prices(bus) == [1, 2, 3, 4]


@pytest.mark.parametrize(("cut", "there"), [("cut_before", []), ("cut_after", [2, 3])])
def test_a_connection_that_stays_cut_in_an_append_leaves_it_unsettled(
    site: Site, at_site: Opens, cut: str, there: list[float]
) -> None:
    bus = at_site(compression="none", timeout_s=1.5)
    bus.append(0, [entry(1)])
    getattr(site.proxy, cut)(b"XCUTX", for_good=True)
    with pytest.raises(Unsettled):
        bus.append(0, [entry(2, symbol="XCUTX"), entry(3)])
    with pytest.raises(Unavailable):
        bus.append(0, [entry(9)])
    site.proxy.mend()
    until("an append is taken", lambda: bus.append(0, [entry(4)]))
    assert prices(bus) == [1, *there, 4]


def test_a_wrong_address_is_said() -> None:
    (port,) = free_ports(1)
    with pytest.raises(Unavailable, match=str(port)):
        KafkaBus(f"127.0.0.1:{port}", "log", timeout_s=0.5)


def test_without_the_driver_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka.admin", None)
    with pytest.raises(MissingExtra, match=r"tapehouse\[kafka\]"):
        KafkaBus("127.0.0.1:1", "log")


def test_a_large_state_is_seen_whole_by_others_and_not_kept_twice(opens: Opens) -> None:
    one, other = opens(), opens()
    (at,) = one.append(0, [entry(1)])
    states = [os.urandom(9 << 20), os.urandom(5 << 20), b"small", b""]
    for state in states:
        one.commit("derive", {0: at}, state)
        assert other.committed("derive") == Committed({0: at}, state)
    other.commit("derive", {1: at}, b"other")
    one.commit("derive", {0: at}, b"last")
    again = opens()
    assert again.committed("derive") == one.committed("derive") == Committed({0: at, 1: at}, b"last")
    assert sum(len(parts.bytes) for parts in again._places._groups._groups["derive"].parts.values()) <= 2


def test_commits_of_several_processes_are_together(opens: Opens) -> None:
    one, other = opens(), opens()
    left, right = one.append(0, [entry(1)])[0], other.append(1, [entry(2)])[0]
    one.commit("record", {0: left})
    other.commit("record", {1: right})
    one.commit("audit", {}, b"all")
    for bus in (one, other, opens()):
        assert bus.committed("record") == Committed({0: left, 1: right})
        assert bus.committed("audit") == Committed({}, b"all")
        assert bus.groups() == ["audit", "record"]


MEMBER = """
import sys, time
from tapehouse.bus.kafka import KafkaBus
address, topic = sys.argv[1:]
bus = KafkaBus(address, topic, session_s=2)
member = bus.join("record")
while True:
    asked = time.monotonic()
    print(asked, *sorted(member.partitions()), flush=True)
    time.sleep(0.02)
"""


def test_members_share_the_partitions_and_take_over_from_one_that_died(opens: Opens) -> None:
    bus = opens(partitions=4, session_s=2.0)
    member = bus.join("record")
    assert member.partitions() == frozenset(range(4))
    command = [sys.executable, "-c", MEMBER, shared_broker(), topic_of(bus)]
    mine: dict[int, float] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        theirs: dict[int, float] = {}
        listener = threading.Thread(target=_listen, args=(other, theirs))
        listener.start()

        def shared() -> bool:
            now = time.monotonic()
            owned = member.partitions()
            mine.update(dict.fromkeys(owned, now))
            return len(owned) == 2 and len(theirs) == 2 and not owned & theirs.keys()

        try:
            until("each has two", shared)
        finally:
            other.send_signal(signal.SIGKILL)
        listener.join(LIMIT_S)
    # A partition is the other's only after it was asked here, and not there any more.
    assert all(mine[partition] < first for partition, first in theirs.items())
    until("all come back", lambda: member.partitions() == frozenset(range(4)))
    member.leave()
    assert member.partitions() == frozenset()


def _listen(other: subprocess.Popen[str], theirs: dict[int, float]) -> None:
    """When the other process first had each of its partitions."""
    assert other.stdout is not None
    for line in other.stdout:
        asked, *partitions = line.split()
        for partition in partitions:
            theirs.setdefault(int(partition), float(asked))


def test_who_does_not_ask_loses_its_partitions(opens: Opens) -> None:
    one = opens(session_s=1.0).join("record")
    other = opens(session_s=1.0).join("record")
    until("the other has all", lambda: other.partitions() == frozenset({0, 1}))
    # Its first question after that must not be answered with what it had.
    assert one.partitions() <= frozenset({0, 1}) - other.partitions()


def test_a_member_s_commits_are_seen_by_kafka_s_tools(opens: Opens) -> None:
    from confluent_kafka import ConsumerGroupTopicPartitions

    bus = opens()
    bus.join("record")
    (at,) = bus.append(0, [entry(1)])
    bus.commit("record", {0: at})
    group = f"{topic_of(bus)}.record"
    client = admin(shared_broker())

    def lag() -> list[int]:
        asked = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
        return [each.offset for each in asked[group].result().topic_partitions if each.partition == 0]

    assert until("the offset is there", lambda: [each for each in lag() if each >= 0]) == [1]


def test_trimming_goes_by_age_and_by_bytes(opens: Opens) -> None:
    bus = opens(partitions=1)
    now = time.time_ns()
    old = [bus.append(0, [entry(*[number] * 50, ingested=now - 3_600 * 10**9)])[0] for number in range(5)]
    for number in range(5, 20):
        bus.append(0, [entry(*[number] * 50, ingested=now)])
    assert bus.trim(Retention(age_s=60), {0: old[1]}) > 0
    assert bus.ends(0).first == 2
    assert bus.trim(Retention(age_s=60), {}) > 0
    assert bus.ends(0).first == 5
    assert bus.trim(Retention(age_s=60), {}) == 0
    assert opens().trim(Retention(bytes=bus.ends(0).bytes // 2), {}) > 0
    assert 11 <= bus.ends(0).first <= 13
    assert bus.trim(Retention(bytes=0), {0: old[0]}) == 0


def test_a_reader_is_told_what_was_deleted_under_it(opens: Opens) -> None:
    bus, other = opens(), opens()
    positions = bus.append(0, [entry(number) for number in range(10)])
    assert prices(bus, None, limit=2) == [0, 1]
    assert prices(bus, positions[-1]) == []
    bus.append(0, [entry(10)])
    other.trim(Retention(age_s=0), {0: positions[5]})
    assert bus.read(0, positions[1], limit=1).lost in (None, Lost(after=positions[1], first=positions[6]))
    assert bus.read(0, positions[0]).lost == Lost(after=positions[0], first=positions[6])


def test_an_append_larger_than_a_batch_is_in_order_and_a_larger_entry_is_refused(opens: Opens) -> None:
    from confluent_kafka.admin import NewTopic

    name = f"small-{uuid.uuid4().hex[:8]}"
    new = NewTopic(name, 1, config={"max.message.bytes": "20000", "flush.messages": "1"})
    client = admin(shared_broker())
    client.create_topics([new])[name].result()
    bus = KafkaBus(shared_broker(), name)
    try:
        assert bus.survives == Survives.MACHINE
        assert bus.partitions == 1
        bus.append(0, [entry(*[number] * 300) for number in range(20)])
        assert prices(bus)[::300] == list(range(20))
        with pytest.raises(LimitExceeded) as refused:
            bus.append(0, [entry(1), entry(*range(2_000))])
        assert refused.value.details["limit"] < 20_000 < refused.value.details["bytes"]
        assert bus.ends(0).next == 20
    finally:
        bus.close()


def test_several_that_open_a_new_log_at_once_agree(opens: Opens) -> None:
    positions: list[Position] = []
    threads = [threading.Thread(target=lambda: positions.extend(opens().append(0, [entry(1)]))) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(at.offset for at in positions) == [0, 1, 2, 3]
    assert len({at.epoch for at in positions}) == 1


def test_many_partitions_and_appends_at_once(opens: Opens) -> None:
    bus = opens(partitions=4)
    found: dict[int, list[Position]] = {partition: [] for partition in range(4)}

    def append(partition: int) -> None:
        for number in range(50):
            found[partition] += bus.append(partition, [entry(number), entry(number + 0.5)])

    threads = [threading.Thread(target=append, args=(partition,)) for partition in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for partition in range(4):
        logged = bus.read(partition, None).entries
        assert [each.position for each in logged] == found[partition]
        assert [table_of(each.entry)["price"][0].as_py() for each in logged] == [n / 2 for n in range(100)]


def test_what_others_wrote_to_the_topic_is_said(opens: Opens) -> None:
    from confluent_kafka import Producer

    bus = opens()
    bus.append(0, [entry(1)])
    producer = Producer({"bootstrap.servers": shared_broker()})
    producer.produce(topic_of(bus), b"no entry", partition=0)
    assert producer.flush(10) == 0
    with pytest.raises(LogDamaged, match="entry 1"):
        bus.read(0, None)


def test_a_closed_log_takes_nothing(opens: Opens) -> None:
    bus = opens()
    bus.close()
    bus.close()
    assert bus.read(0, None) == ([], None)
    for refused in (lambda: bus.append(0, [entry(1)]), lambda: bus.commit("g", {}), lambda: bus.join("g")):
        with pytest.raises(Unavailable):
            refused()


def test_one_broker_s_acknowledgement_survives_its_process(opens: Opens) -> None:
    assert opens().survives == Survives.PROCESS
