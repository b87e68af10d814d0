"""The members of a group share its partitions by leases, which run out when nobody renews them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from tapehouse.bus.redis import scripts
from tapehouse.bus.redis.server import Server


class Member:
    """See `Membership`."""

    def __init__(self, server: Server, keys: Sequence[str], partitions: int, lease_s: float) -> None:
        self._server, self._keys, self._partitions, self._lease_s = server, keys, partitions, lease_s
        self._name = secrets.token_hex(8)
        self._left = False

    def partitions(self) -> frozenset[int]:
        """See `Membership.partitions`."""
        if self._left:
            return frozenset()
        arguments = [self._name, int(self._lease_s * 1_000), self._partitions]
        return frozenset(int(each) for each in self._server.ask(scripts.CLAIM, self._keys, arguments))

    def leave(self) -> None:
        """See `Membership.leave`."""
        if not self._left:
            self._left = True
            self._server.ask(scripts.LEAVE, self._keys, [self._name])
