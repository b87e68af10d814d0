"""What is odd in rows that break no rule: statistical checks, sampling, grades. `docs/design/quality.md`."""

from tapehouse.bulk.checks.documents import assess, expected_rows, keep, kept, record
from tapehouse.bulk.checks.inspection import inspector

__all__ = ["assess", "expected_rows", "inspector", "keep", "kept", "record"]
