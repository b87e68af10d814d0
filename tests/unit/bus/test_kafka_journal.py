"""What the messages of a Kafka log's journal come to, whoever wrote them and whatever compaction left of them."""

from __future__ import annotations

import pytest

from tapehouse.bus.base import Began, Committed
from tapehouse.bus.kafka.journal import Begins, Epochs, Groups, Message
from tapehouse.bus.kafka.writer import Outgoing
from tapehouse.errors import LogDamaged
from tapehouse.model import Position

AT = [Position(1, offset) for offset in range(10)]


def said(begins: Begins) -> Message:
    return read(begins.message())


def read(message: Outgoing, time_ms: int = 1_000) -> Message:
    return Message(message.key or b"", message.value, time_ms)


def compacted(messages: list[Message]) -> list[Message]:
    """What is left of them at least: the newest of each key, in their order."""
    newest = {message.key: number for number, message in enumerate(messages)}
    return [message for number, message in enumerate(messages) if newest[message.key] == number]


def groups_of(messages: list[Message]) -> Groups:
    groups = Groups()
    for message in messages:
        groups.apply(message)
    return groups


def epochs_of(*begins: Begins) -> Epochs:
    epochs = Epochs()
    for each in begins:
        epochs.apply(said(each))
    return epochs


def test_of_two_that_saw_a_new_topic_the_first_is_right() -> None:
    one, other = Epochs().renewed("id"), Epochs().renewed("id")
    epochs = epochs_of(one, other)
    assert epochs.of(3) == (Began(one.epoch, 0),)
    following = epochs.renewed("another")
    assert following.epoch > one.epoch
    epochs = epochs_of(one, other, following)
    assert (epochs.topic_id, epochs.newest(0)) == ("another", following.epoch)


def test_who_is_behind_cannot_bring_a_former_topic_back() -> None:
    first = Epochs().renewed("id")
    second = epochs_of(first).renewed("another")
    stale = epochs_of(first, second).renewed("id")
    assert epochs_of(first, second, stale).topic_id == "another"


def test_a_cut_is_of_its_partition_and_topic_only() -> None:
    first = Epochs().renewed("id")
    cut = epochs_of(first).cut(1, 40)
    epochs = epochs_of(first, cut)
    assert epochs.of(0) == (Began(first.epoch, 0),)
    assert epochs.of(1) == (Began(first.epoch, 0), Began(cut.epoch, 40))
    renewed = epochs.renewed("another")
    assert renewed.epoch > cut.epoch
    assert epochs_of(first, cut, renewed).of(1) == (Began(renewed.epoch, 0),)
    assert epochs_of(first, cut, renewed, epochs.cut(1, 5)).of(1) == (Began(renewed.epoch, 0),)


def test_of_two_cuts_the_lower_one_goes() -> None:
    first = Epochs().renewed("id")
    late = epochs_of(first).cut(0, 41)
    early = epochs_of(first, late).cut(0, 40)
    assert epochs_of(first, late, early).of(0) == (Began(first.epoch, 0), Began(early.epoch, 40))


def test_compaction_takes_nothing_that_counts() -> None:
    groups, messages = Groups(), []
    states = [None, b"one" * 400_000, b"two", None, b"", None]
    for number, state in enumerate(states):
        positions = {number % 2: AT[number], 2: AT[number]}
        for outgoing in groups.commit("derive", positions, state):
            messages.append(read(outgoing))
            groups.apply(messages[-1])
        whole = groups.committed("derive")
        assert groups_of(compacted(messages)).committed("derive") == whole
    assert whole == Committed({0: AT[4], 1: AT[5], 2: AT[5]}, b"")


def test_a_commit_that_was_cut_short_is_there_not_at_all_or_whole() -> None:
    groups = Groups()
    before = [read(each) for each in groups.commit("derive", {0: AT[0], 1: AT[0]}, b"old")]
    after = [read(each) for each in groups.commit("derive", {0: AT[1], 1: AT[1]}, b"new" * 400_000)]
    old, new = groups_of(before).committed("derive"), groups_of(before + after).committed("derive")
    found = [groups_of(before + after[:count]).committed("derive") for count in range(len(after) + 1)]
    assert found[0] == old
    assert found[-1] == new
    assert all(each in (old, new) for each in found)


def test_parts_that_nobody_committed_are_removed_in_the_end() -> None:
    lost = [read(each) for each in Groups().commit("derive", {}, b"lost") if each.value == b"lost"]
    groups = groups_of(lost)
    assert groups.names() == []
    assert groups.committed("derive") == Committed()
    deleted = [each.key for each in groups.commit("derive", {}, b"new") if each.value is None]
    assert deleted == [lost[0].key]
    young = groups_of([each._replace(time_ms=1 << 60) for each in lost])
    assert not [each for each in young.commit("derive", {}, b"new") if each.value is None]


def test_a_state_that_is_not_whole_is_said() -> None:
    messages = [read(each) for each in Groups().commit("derive", {}, b"state")]
    with pytest.raises(LogDamaged, match="derive"):
        groups_of(messages[1:]).committed("derive")
    with pytest.raises(LogDamaged, match="derive"):
        groups_of([messages[0]._replace(value=b"stale"), *messages[1:]]).committed("derive")
