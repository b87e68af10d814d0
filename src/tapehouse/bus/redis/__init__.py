"""`redis://HOST:PORT/DB` and `redis+cluster://HOST:PORT`: the log in Redis Streams, which several processes share.

A partition is a stream, and an entry of number N has the id `N-1`. Beside it a hash knows the epochs and what comes
next; both are in one slot, and change in one script. See docs/design/log-redis.md.
"""

from tapehouse.bus.redis.bus import RedisBus, RedisClusterBus

__all__ = ["RedisBus", "RedisClusterBus"]
