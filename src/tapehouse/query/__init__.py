"""Questions about history, answered from any store: calendars, resampling, limits and pages."""

from tapehouse.query.history import StoredHistory

__all__ = ["StoredHistory"]
