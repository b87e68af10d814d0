"""Which files are meant by paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from tapehouse import bulk
from tapehouse.bulk.plan.paths import find
from tapehouse.errors import NotFound

ROWS = "Date,Open,High,Low,Close,Volume\n" + "".join(f"2024-01-0{n},1,3,0.5,2,10\n" for n in range(2, 8))


def test_a_folder_is_searched_for_what_can_be_loaded(tmp_path: Path) -> None:
    for name in ("b/KO.csv", "a.CSV.gz", "c.duckdb", ".hidden/x.csv", "readme.md", "b/.x.csv", "store/x.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "store" / "owner.lock").touch()
    found = find([tmp_path, tmp_path / "a.CSV.gz"])
    assert [path.relative_to(tmp_path).as_posix() for path in found.files] == ["a.CSV.gz", "b/KO.csv", "c.duckdb"]
    assert find([str(tmp_path / "*" / "KO.*")]).files == [tmp_path / "b" / "KO.csv"]


def test_links_do_not_lead_out_of_a_folder_and_are_named(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    for folder in (outside, inside, inside / "sub"):
        folder.mkdir()
        (folder / f"{folder.name.upper()}.csv").write_text(ROWS)
    (inside / "file.csv").symlink_to(outside / "OUTSIDE.csv")
    (inside / "folder").symlink_to(outside)
    (inside / "loop").symlink_to(inside)
    (inside / "again.csv").symlink_to(inside / "sub" / "SUB.csv")
    (inside / "broken.csv").symlink_to("nowhere.csv")
    (inside / "itself.csv").symlink_to("itself.csv")
    files = bulk.plan([inside], bulk.LoadOptions())
    assert [file.name for file in files] == ["INSIDE.csv", "SUB.csv"]
    (note,) = files[0].notes
    for link, where in (
        ("file.csv", "out of the folder"),
        ("folder", "out of the folder"),
        ("loop", "to a folder that is searched itself"),
        ("again.csv", "to a file that is loaded itself"),
        ("broken.csv", "to nothing"),
        ("itself.csv", "to nothing"),
    ):
        assert f"{inside / link} (leads {where})" in note
    assert bulk.plan([inside / "file.csv"], bulk.LoadOptions())[0].problem is None  # it was named


def test_a_folder_of_links_alone_says_so(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "KO.csv").write_text(ROWS)
    (tmp_path / "in" / "KO.csv").symlink_to(tmp_path / "KO.csv")
    with pytest.raises(NotFound, match=r"does not follow .*KO\.csv, which leads out of the folder"):
        find([tmp_path / "in"])
