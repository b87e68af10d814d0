"""The embedded store, `duckdb://`: see `tapehouse.store.duckdb.store`."""

from tapehouse.store.duckdb.store import DuckDBStore

__all__ = ["DuckDBStore"]
