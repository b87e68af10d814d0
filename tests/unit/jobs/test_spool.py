"""Files that are sent: names that could lead elsewhere, limits, and that nothing is left."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tapehouse.errors import InvalidRequest, LimitExceeded, StoreReadOnly, UnreadableFile
from tapehouse.jobs.spool import Spool


def spool(folder: Path, *, upload_bytes: int = 100, total_bytes: int = 1_000) -> Spool:
    return Spool(folder / "spool", upload_bytes=upload_bytes, total_bytes=total_bytes)


def test_files_are_where_their_names_say(tmp_path: Path) -> None:
    upload = spool(tmp_path).upload()
    for name in ("a.csv", "AAPL/2024.csv", "MSFT/2024.csv", ".hidden", "é $x;.csv"):
        upload.begin(name)
        upload.write(name.encode())
        upload.end()
        assert (upload.folder / name).read_text() == name
    upload.discard()
    upload.discard()
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "../up", "a/../b", "a//b", "a/", ".", "..", "a\\b", "a\0b", "a\nb", "x" * 201, "a/" * 16 + "b"],
)
def test_names_that_lead_elsewhere(tmp_path: Path, name: str) -> None:
    upload = spool(tmp_path).upload()
    with pytest.raises(InvalidRequest, match="cannot be the name of a file"):
        upload.begin(name)
    assert upload.sizes == {}


def test_a_name_comes_once(tmp_path: Path) -> None:
    upload = spool(tmp_path).upload()
    upload.begin("a")
    upload.end()
    with pytest.raises(InvalidRequest, match="two files are called 'a'"):
        upload.begin("a")
    with pytest.raises(InvalidRequest, match="name of a folder"):
        upload.begin("a/b")


def test_one_upload_has_a_limit(tmp_path: Path) -> None:
    upload = spool(tmp_path).upload()
    upload.begin("a")
    upload.write(bytes(60))
    upload.end()
    upload.begin("b")
    with pytest.raises(LimitExceeded, match="max_upload_bytes"):
        upload.write(bytes(41))
    upload.write(bytes(40))
    upload.discard()


def test_all_uploads_together_have_one_that_is_given_back(tmp_path: Path) -> None:
    held = spool(tmp_path, total_bytes=150)
    first, second = held.upload(), held.upload()
    for upload in (first, second):
        upload.begin("a")
    first.write(bytes(100))
    with pytest.raises(LimitExceeded, match="max_spool_bytes"):
        second.write(bytes(51))
    first.discard()
    second.write(bytes(51))
    second.discard()


def test_what_a_process_left_is_removed(tmp_path: Path) -> None:
    upload = spool(tmp_path).upload()
    upload.begin("a")
    upload.write(b"rows")
    later = spool(tmp_path)
    later.sweep([])
    assert list((tmp_path / "spool").iterdir()) == []
    upload.discard()


def test_what_waits_is_not_removed_and_counts(tmp_path: Path) -> None:
    upload = spool(tmp_path).upload()
    upload.begin("year/a")
    upload.write(bytes(60))
    upload.end()
    later = spool(tmp_path, total_bytes=100)
    again = later.again(upload.folder, upload.sizes)
    later.sweep([again.folder])
    again.check()
    new = later.upload()
    new.begin("b")
    with pytest.raises(LimitExceeded, match="max_spool_bytes"):
        new.write(bytes(41))
    again.discard()
    new.write(bytes(41))
    new.discard()
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize("left", [b"", b"ro", None])
def test_what_waited_and_is_not_whole_is_named(tmp_path: Path, left: bytes | None) -> None:
    upload = spool(tmp_path).upload()
    upload.begin("a")
    upload.write(b"rows")
    upload.end()
    (upload.folder / "a").unlink()
    if left is not None:
        (upload.folder / "a").write_bytes(left)
    again = spool(tmp_path).again(upload.folder, upload.sizes)
    with pytest.raises(UnreadableFile, match=f"no longer whole: {len(left or b'')} of its 4 bytes.*send it again"):
        again.check()


def test_a_store_without_a_folder_spools_to_a_temporary_one() -> None:
    held = Spool(None, upload_bytes=10, total_bytes=10)
    upload = held.upload()
    upload.begin("a")
    upload.end()
    assert (upload.folder / "a").exists()
    held.close()
    held.close()
    assert not upload.folder.exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidRequest):
        Spool(tmp_path / "file" / "spool", upload_bytes=1, total_bytes=1).upload()
    held = spool(tmp_path)
    upload = held.upload()
    shutil.rmtree(upload.folder)
    upload.folder.touch()
    with pytest.raises((InvalidRequest, StoreReadOnly)):
        upload.begin("a/b")
