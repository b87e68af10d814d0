"""What files are called: by their last part alone, unless another file of the load has the same."""

from __future__ import annotations

import csv
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse import bulk
from tapehouse.bulk.plan.names import names
from tapehouse.store.memory import MemoryStore

HEADER = "timestamp,open,high,low,close,volume\n"
ROWS = HEADER + "".join(f"2024-01-02T00:0{n}:00Z,1,3,0.5,2,10\n" for n in range(9))


@pytest.mark.parametrize(
    ("paths", "called"),
    [
        (["d/a.csv", "d/x/b.csv"], ["a.csv", "b.csv"]),
        (["d/X/a.csv", "d/Y/a.csv", "d/Y/b.csv"], ["X/a.csv", "Y/a.csv", "b.csv"]),
        (["d/X/1/a.csv", "d/Y/1/a.csv", "d/Z/2/a.csv"], ["X/1/a.csv", "Y/1/a.csv", "Z/2/a.csv"]),
        (["a.csv", "X/a.csv"], ["a.csv", "X/a.csv"]),
        (["/X/a.csv", "/a.csv"], ["X/a.csv", "/a.csv"]),
    ],
)
def test_as_many_folders_as_tell_files_apart(paths: list[str], called: list[str]) -> None:
    assert list(names(map(Path, paths)).values()) == called


parts = st.lists(st.sampled_from(["a", "b", ".."]), max_size=3)
files = st.sets(
    st.builds(
        lambda root, folders, name: Path(root, *folders, name),
        st.sampled_from(["", "/"]),
        parts,
        parts.map(lambda p: f"{len(p)}.csv"),
    )
)


@given(files)
def test_no_two_files_have_one_name(paths: set[Path]) -> None:
    found = names(paths)
    assert len(set(found.values())) == len(paths)
    assert all(PurePath(path).parts[-1] == name.rpartition("/")[2] for path, name in found.items())


def test_reports_and_quarantine_tell_files_of_one_name_apart(tmp_path: Path) -> None:
    for folder in "XYZ":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "bars.csv").write_text(ROWS + "no time,1,3,0.5,2,10\n")
    (tmp_path / "X" / "KO.csv").write_text(ROWS)
    (tmp_path / "Z" / "bars.csv").write_bytes(b"PAR1 cut off")
    options = bulk.LoadOptions(symbol_from="folder")
    report = bulk.load([tmp_path], MemoryStore(), options, quarantine_dir=tmp_path / "q")
    assert [each.file.name for each in report.files] == ["KO.csv", "X/bars.csv", "Y/bars.csv", "Z/bars.csv"]
    assert [each.file.source for each in report.files][:2] == ["file:KO.csv", "file:X/bars.csv"]
    problem = report.files[3].problem
    assert problem is not None
    assert problem.message.count("bars.csv") == 1
    (kept,) = (tmp_path / "q").glob("**/X_bars.csv.csv")
    assert [row[0] for row in csv.reader(kept.read_text().splitlines())] == ["file", "X/bars.csv"]
