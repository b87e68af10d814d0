"""What `tapehouse export` says of its progress."""

from __future__ import annotations

import pytest

from tapehouse.cli.exporting import said
from tapehouse.export.base import Progress


@pytest.mark.parametrize(
    ("total", "text"),
    [
        (48_000, "25%, 12,000 rows, 3 files, 2.5 MB, 4,000 rows/s"),
        (None, "12,000 rows, 3 files, 2.5 MB, 4,000 rows/s"),
    ],
)
def test_progress(total: int | None, text: str) -> None:
    done = Progress(file="a", files=3, rows=12_000, rows_total=total, bytes=2_500_000, seconds=3.0)
    assert said(done) == text
