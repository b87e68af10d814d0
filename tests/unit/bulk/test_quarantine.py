"""Where bad rows go."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.bulk.base import BadRow
from tapehouse.bulk.quarantine import Quarantine, Reasons
from tapehouse.errors import StoreError


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    file = Quarantine(tmp_path / "batch").file("2024.csv")
    rows = [BadRow(7, 'a,"b",c'), BadRow(9, "two\nlines"), BadRow(10, "\u00e9 \\xff")]
    file.add([("some reason", row) for row in rows])
    file.add([])
    file.close()
    file.close()
    assert file.path == tmp_path / "batch" / "2024.csv.csv"
    with file.path.open(newline="", encoding="utf-8") as opened:
        assert list(csv.reader(opened)) == [
            ["file", "line", "reason", "row"],
            *(["2024.csv", str(row.line), "some reason", row.row] for row in rows),
        ]


def test_reasons_are_counted_with_a_few_examples() -> None:
    rows = [("odd" if line % 2 else "even", BadRow(line, "r" * 9_000)) for line in range(9)]
    found = Reasons.of(rows, {"gap": 2})
    assert {reason: each.rows for reason, each in found.rejections.items()} == {"even": 5, "odd": 4}
    assert [row.line for row in found.rejections["even"].examples] == [0, 2, 4]
    assert len(found.rejections["even"].examples[0].row) == 500
    assert found.remarks == {"gap": 2}


@given(cut=st.lists(st.integers(0, 30), max_size=4), bad=st.lists(st.sampled_from("abc"), max_size=30))
def test_reasons_of_parts_are_those_of_the_whole(cut: list[int], bad: list[str]) -> None:
    rows = [(reason, BadRow(line, reason)) for line, reason in enumerate(bad)]
    parts = Reasons()
    for start, end in itertools.pairwise([0, *sorted(cut), 30]):
        part = Reasons.of(rows[start:end], {"seen": end - start})
        before = msgspec.json.encode(part)
        parts.add(part)
        assert msgspec.json.encode(part) == before
    assert parts == Reasons.of(rows, {"seen": 30})


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b.csv", "..", "x" * 400, "sp ace\n.csv"])
def test_a_name_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    file = Quarantine(tmp_path / "q").file(name)
    file.add([("bad", BadRow(1, "row"))])
    file.close()
    assert file.path is not None
    assert file.path.parent == tmp_path / "q"


def test_without_bad_rows_there_is_no_file(tmp_path: Path) -> None:
    file = Quarantine(tmp_path / "q").file("x")
    file.close()
    assert file.path is None
    assert not (tmp_path / "q").exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="bad rows cannot be written"):
        Quarantine(tmp_path / "file" / "q").file("x").add([("bad", BadRow(1, "row"))])
