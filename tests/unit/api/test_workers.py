"""Whose turn it is, and who is turned away."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from tapehouse.api.workers import Lane, Presence, Turns
from tapehouse.errors import Overloaded, Unavailable

PATIENCE_S = 20.0


def test_clients_take_turns() -> None:
    turns: Turns[str] = Turns()
    for call in ("a1", "a2", "a3", "b1", "c1", "b2"):
        turns.add(call[0], call)

    assert [turns.take() for _ in range(len(turns))] == ["a1", "b1", "c1", "a2", "b2", "a3"]
    with pytest.raises(IndexError):
        turns.take()


def test_a_call_that_is_taken_back_is_nobodys_turn() -> None:
    turns: Turns[str] = Turns()
    turns.add("a", "a1")
    turns.add("b", "b1")

    assert turns.take_back("a", "a1")
    assert not turns.take_back("a", "a1")
    assert not turns.take_back("c", "c1")
    assert (len(turns), turns.take()) == (1, "b1")


def test_only_a_client_with_more_is_crowded_out() -> None:
    turns: Turns[str] = Turns()
    assert turns.crowd_out("b") is None
    turns.add("a", "a1")
    assert turns.crowd_out("b") is None
    turns.add("a", "a2")
    assert turns.crowd_out("a") is None
    assert turns.crowd_out("b") == "a2"
    assert len(turns) == 1


def test_short_calls_rarely_run_beside_each_other_and_do_not_wait_for_a_long_one() -> None:
    lane = Lane("query", 2)
    running, beside, lock = 0, 0, threading.Lock()

    def short() -> None:
        nonlocal running, beside
        with lock:
            running += 1
            beside += running > 1
        time.sleep(0.0001)
        with lock:
            running -= 1

    try:
        for call in [lane.submit(short) for _ in range(100)]:
            call.result(PATIENCE_S)
        assert beside < 50
        gate = threading.Event()
        long = lane.submit(lambda: gate.wait(PATIENCE_S))
        lane.submit(short).result(PATIENCE_S)
        assert not long.done()
        gate.set()
        assert long.result(PATIENCE_S)
    finally:
        lane.close()


@given(st.lists(st.sampled_from("abcd"), max_size=40))
def test_each_client_is_served_in_its_own_order_and_never_twice_in_a_row_while_others_wait(clients: list[str]) -> None:
    turns: Turns[tuple[str, int]] = Turns()
    for number, client in enumerate(clients):
        turns.add(client, (client, number))

    served = [turns.take() for _ in clients]

    for client in "abcd":
        numbers = [number for name, number in served if name == client]
        assert numbers == sorted(numbers)
    left = Counter(clients)
    for place, (client, _) in enumerate(served):
        left[client] -= 1
        if place + 1 < len(served) and served[place + 1][0] == client:
            assert +left == Counter({client: left[client]})


@pytest.fixture
def busy() -> tuple[Lane, threading.Event]:
    """A lane whose only thread is taken until the event is set; four may wait."""
    lane, go_on, began = Lane("test", 1, max_waiting=4), threading.Event(), threading.Event()

    def block() -> None:
        began.set()
        go_on.wait(PATIENCE_S)

    lane.submit(block)
    assert began.wait(PATIENCE_S)
    return lane, go_on


def test_one_client_does_not_starve_another(busy: tuple[Lane, threading.Event]) -> None:
    lane, go_on = busy
    served: list[str] = []
    calls = [lane.submit(lambda: served.append("many"), client="many", admitted=False) for _ in range(3)]
    calls.append(lane.submit(lambda: served.append("one"), client="one", admitted=False))

    go_on.set()
    for call in calls:
        call.result(PATIENCE_S)
    lane.close()

    assert served == ["many", "one", "many", "many"]


def test_who_has_most_waiting_makes_room_when_no_more_may_wait(busy: tuple[Lane, threading.Event]) -> None:
    lane, go_on = busy
    many = [lane.submit(lambda: "done", client="many", admitted=False) for _ in range(4)]
    with pytest.raises(Overloaded) as refused:
        lane.submit(lambda: "done", client="many", admitted=False)
    assert refused.value.details["retry_after_s"] >= 1.0

    one = [lane.submit(lambda: "done", client="one", admitted=False) for _ in range(2)]
    with pytest.raises(Overloaded):  # now both have two
        lane.submit(lambda: "done", client="one", admitted=False)

    assert lane.pending == 5
    go_on.set()
    assert [call.result(PATIENCE_S) for call in (*many[:2], *one)] == ["done"] * 4
    for call in many[2:]:
        with pytest.raises(Overloaded):
            call.result(PATIENCE_S)
    lane.close()
    assert lane.pending == 0


def test_a_cancelled_call_is_not_made_and_leaves_its_place(busy: tuple[Lane, threading.Event]) -> None:
    lane, go_on = busy
    made: list[int] = []
    calls = [lane.submit(lambda: made.append(1), client="a", admitted=False) for _ in range(4)]
    assert calls[0].cancel()
    assert lane.pending == 4
    calls.append(lane.submit(lambda: made.append(2), client="a", admitted=False))

    go_on.set()
    for call in calls[1:]:
        call.result(PATIENCE_S)
    lane.close()

    assert made == [1, 1, 1, 2]
    assert lane.pending == 0


def test_an_error_reaches_who_waits(busy: tuple[Lane, threading.Event]) -> None:
    lane, go_on = busy
    failed = lane.submit(lambda: 1 // 0)
    go_on.set()
    assert isinstance(failed.exception(PATIENCE_S), ZeroDivisionError)
    lane.close()


def test_a_stop_drops_what_waits_and_takes_nothing_more(busy: tuple[Lane, threading.Event]) -> None:
    lane, go_on = busy
    waits = lane.submit(lambda: None, client="a")
    lane.stop()
    assert waits.cancelled()
    with pytest.raises(Unavailable):
        lane.submit(lambda: None, client="a")
    assert lane.pending == 1
    go_on.set()
    lane.close()
    assert lane.pending == 0


def test_who_would_have_to_wait_too_long_is_turned_away() -> None:
    lane = Lane("test", 1, max_wait_s=0.5)
    for _ in range(20):
        lane.submit(partial(time.sleep, 0.02)).result(PATIENCE_S)
    go_on = threading.Event()
    taken = 0

    def fill() -> None:
        nonlocal taken
        while taken < 500:
            lane.submit(go_on.wait, admitted=False)
            taken += 1

    try:
        with pytest.raises(Overloaded) as refused:
            fill()
        assert 3 <= taken <= 200
        assert refused.value.details["retry_after_s"] >= 1
    finally:
        go_on.set()
        lane.close()


def test_a_guess_counts_in_full_once_somebody_has_waited(busy: tuple[Lane, threading.Event]) -> None:
    _, go_on = busy
    lane = Lane("test", 1, max_wait_s=0.4)

    def go_on_asking() -> None:
        for _ in range(200):
            lane.submit(go_on.wait, admitted=False)
            time.sleep(0.005)

    try:
        for _ in range(30):
            lane.submit(partial(time.sleep, 0.02), admitted=False)
        with pytest.raises(Overloaded):
            go_on_asking()
        # 0.4 s are 20 calls of 20 ms; nobody who has not waited yet would be refused before four times as many.
        assert lane.pending <= 60
    finally:
        go_on.set()
        lane.close()


def test_one_slow_call_does_not_turn_hundreds_away() -> None:
    lane, go_on = Lane("test", 1, max_wait_s=15.0), threading.Event()
    try:
        lane.submit(partial(time.sleep, 1.0)).result(PATIENCE_S)
        for _ in range(1_000):
            lane.submit(go_on.wait, admitted=False)
    finally:
        go_on.set()
        lane.close()


def test_what_a_client_that_is_gone_waits_for_is_cancelled() -> None:
    async def scenario() -> None:
        loop, presence = asyncio.get_running_loop(), Presence()
        first, second = loop.create_future(), loop.create_future()
        waits = asyncio.create_task(presence.during(first))
        await asyncio.sleep(0)
        presence.leave()
        with pytest.raises(ClientDisconnect):
            await waits
        assert first.cancelled()
        with pytest.raises(ClientDisconnect):
            await presence.during(second)
        assert second.cancelled()

    asyncio.run(scenario())


def test_a_task_that_is_cancelled_says_so_and_not_that_its_client_is_gone() -> None:
    async def scenario() -> None:
        presence = Presence()
        wanted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waits = asyncio.create_task(presence.during(wanted))
        await asyncio.sleep(0)
        waits.cancel()
        presence.leave()
        with pytest.raises(asyncio.CancelledError):
            await waits

    asyncio.run(scenario())
