"""The store in memory: docs/design/versions.md in plain Python, which every other store is compared with.

It keeps every version of every row in lists, looks at all of a symbol's keys for a read, and forgets all when the
process ends. Clear and exact; quick enough for tests, demonstrations and some hundred thousand rows.
"""

from tapehouse.store.memory.store import MemoryStore

__all__ = ["MemoryStore"]
