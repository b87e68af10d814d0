"""Who gets which topic. Pure.

A topic's list is put together when its first record comes, from those who named its symbol and those whose pattern it
matches, and is kept until either changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from tapehouse.codec.live.messages import EntryMessages, Variant
from tapehouse.model import wildcard


class Follower(Protocol):
    """Who follows topics. `symbols` without wildcards, `patterns` with."""

    channels: tuple[str, ...]
    symbols: tuple[str, ...]
    patterns: tuple[str, ...]
    variant: Variant
    add: Callable[[bytes], None] | None
    """Takes each frame; None for those who take the rows themselves."""

    def note(self, messages: EntryMessages, symbol: int) -> None:
        """Take the rows of the symbol at that place of an entry."""


class Topic:
    """Those who follow one channel of one symbol."""

    __slots__ = ("followers", "frames")

    def __init__(self, followers: Iterable[Follower]) -> None:
        self.frames: dict[Variant, list[Callable[[bytes], None]]] = {}
        self.followers: list[Follower] = []
        for follower in followers:
            if follower.add is None:
                self.followers.append(follower)
            else:
                self.frames.setdefault(follower.variant, []).append(follower.add)


class Routes:
    """All followers, by topic."""

    def __init__(self) -> None:
        self._exact: dict[tuple[str, str], dict[Follower, None]] = {}
        self._wild: dict[str, dict[Follower, None]] = {}
        self._topics: dict[str, dict[str, Topic | None]] = {}

    def add(self, follower: Follower) -> None:
        """Let it follow its topics."""
        for channel in follower.channels:
            for symbol in follower.symbols:
                self._exact.setdefault((channel, symbol), {})[follower] = None
            if follower.patterns:
                self._wild.setdefault(channel, {})[follower] = None
            self._forget(channel, follower)

    def remove(self, follower: Follower) -> None:
        """Let it follow nothing."""
        for channel in follower.channels:
            for symbol in follower.symbols:
                followers = self._exact.get((channel, symbol), {})
                followers.pop(follower, None)
                if not followers:
                    self._exact.pop((channel, symbol), None)
            self._wild.get(channel, {}).pop(follower, None)
            self._forget(channel, follower)

    def _forget(self, channel: str, follower: Follower) -> None:
        topics = self._topics.get(channel, {})
        if follower.patterns:
            topics.clear()
        for symbol in follower.symbols:
            topics.pop(symbol, None)

    def topic(self, channel: str, symbol: str) -> Topic | None:
        """Those who follow it; None when nobody does."""
        topics = self._topics.get(channel)
        if topics is None:
            topics = self._topics[channel] = {}
        try:
            return topics[symbol]
        except KeyError:
            topic = topics[symbol] = self._topic(channel, symbol)
            return topic

    def dispatch(self, messages: EntryMessages) -> int:
        """Give an entry to all who follow any of its topics; how many messages that were."""
        channel, delivered = messages.entry.channel, 0
        for place, symbol in enumerate(messages.entry.symbols):
            topic = self.topic(channel, symbol)
            if topic is None:
                continue
            for variant, adds in topic.frames.items():
                frame = messages.frame(place, variant)
                delivered += len(adds)
                for add in adds:
                    add(frame)
            for follower in topic.followers:
                follower.note(messages, place)
        return delivered

    def _topic(self, channel: str, symbol: str) -> Topic | None:
        followers = dict(self._exact.get((channel, symbol), {}))
        for follower in self._wild.get(channel, {}):
            if any(wildcard(pattern).fullmatch(symbol) for pattern in follower.patterns):
                followers[follower] = None
        return Topic(followers) if followers else None
