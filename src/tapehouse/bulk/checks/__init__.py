"""What is odd in rows that break no rule: statistical checks, sampling, grades. `docs/design/quality.md`."""

from tapehouse.bulk.checks.documents import assess, kept, record
from tapehouse.bulk.checks.inspection import inspector

__all__ = ["assess", "inspector", "kept", "record"]
