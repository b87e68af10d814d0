"""The page's loads: files are sent and watched, batches undone, grades shown, in Chromium."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.system.test_page import SMALLEST, Page, page  # noqa: F401 - `page` is a fixture

HEADER = "symbol,date,open,high,low,close,volume\n"
DAYS = HEADER + "".join(f"UP,2024-01-{day:02d},100,102,99,{100 + day % 3},1000\n" for day in range(1, 29))
MINUTES = "symbol,timestamp,open,high,low,close,volume\n" + "".join(
    f"LONG,{1_600_000_020 + 60 * n},1,2,0.5,1.5,10\n" for n in range(1_200_000)
)
SENT = "Array.from(document.querySelectorAll('.job-state'), (state) => state.textContent)"


@pytest.fixture
def server(make_server: Any) -> Any:
    made = make_server()
    made.start()
    return made


def send(page: Page, *files: Path, interval: str = "") -> None:  # noqa: F811
    """Choose files in the open dialog, and load them."""
    page.all("#load-files")[0].send_keys("\n".join(map(str, files)))
    page.run("document.getElementById('load-interval').value = arguments[0]", interval)
    page.click("#load-send")


@pytest.mark.browser
def test_files_are_loaded_and_shown_and_taken_back(page: Page, server: Any) -> None:  # noqa: F811
    (server.folder / "days.csv").write_text(DAYS)
    page.open(server)
    page.until("the words for a first run", lambda: page.seen("#first-run"))
    page.click("#load-here")
    page.until("the dialog", lambda: page.seen("#loads-dialog") and page.seen("#no-batches"))
    send(page, server.folder / "days.csv")
    page.until("the job", lambda: page.run(f"return {SENT}") == ["done"])
    assert page.text(".job-name") == "days.csv"
    assert page.text(".job-said") == "28 inserted"
    page.until("the batch", lambda: "28 inserted" in page.text(".batch-said"))
    page.until("the symbol", lambda: page.text(".symbol-name") == "UP")
    assert page.text(".grade") in ("A", "B", "C", "D", "F")
    httpx.delete(f"{server.url}v1/bars?symbols=UP&interval=1d&end=2024-01-02").raise_for_status()
    page.until("a stale grade", lambda: page.text(".grade").endswith("?"))

    page.click(".batch button")
    assert [button.text for button in page.all(".batch button")] == ["Take it back", "Keep"]
    assert page.run("return document.activeElement.textContent") == "Keep"
    page.click(".batch button")
    page.until("what was undone", lambda: "27 rows removed" in page.text("#loads-said"))
    page.until("two batches", lambda: len(page.all(".batch")) == 2)
    assert "undone" in [badge.text for badge in page.all(".batch .badge")]
    page.press("\ue00c")
    page.until("nothing left", lambda: page.seen("#first-run") and not page.seen("#loads-dialog"))


@pytest.mark.browser
def test_files_that_were_refused_are_named(page: Page, server: Any) -> None:  # noqa: F811
    for name, text in (("days.csv", DAYS), ("one.csv", "a;b\n1;2\n"), ("two.csv", "")):
        (server.folder / name).write_text(text)
    page.open(server)
    page.press("u")
    page.until("the dialog", lambda: page.seen("#loads-dialog"))
    send(page, *(server.folder / name for name in ("days.csv", "one.csv", "two.csv")))
    page.until("the job", lambda: page.run(f"return {SENT}") == ["done"])
    for _ in range(2):
        assert page.text(".job-said").startswith("1 of 3 files loaded. 28 ")
        assert [problem.text.partition(":")[0] for problem in page.all(".job-problem")] == ["one.csv", "two.csv"]
        page.open(server)  # of a job of before, the list tells, which has no reports
        page.press("u")
        page.until("the list", lambda: page.seen(".job-said"))


@pytest.mark.browser
def test_a_load_is_watched_and_cancelled(page: Page, server: Any) -> None:  # noqa: F811
    (server.folder / "long.csv").write_text(MINUTES)
    page.open(server)
    page.press("u")
    page.until("the dialog", lambda: page.seen("#loads-dialog"))
    send(page, server.folder / "long.csv", interval="1m")
    page.until("progress", lambda: "rows/s" in page.text(".job-said") and page.seen(".job progress"))
    assert page.text(".job-said").startswith("long.csv: ")
    page.click(".job-head button")
    page.until("the end", lambda: page.run(f"return {SENT}")[0] in ("cancelled", "done"))
    assert not page.seen(".job progress")
    (job,) = httpx.get(f"{server.url}v1/jobs").json()["jobs"]
    assert page.text(".job-state") == job["state"]
    if job["state"] == "cancelled":
        assert f"--resume {job['batch']}" in page.text(".job-said")


@pytest.mark.browser
def test_what_cannot_be_loaded_is_said(page: Page, server: Any) -> None:  # noqa: F811
    (server.folder / "notes.txt").write_text("buy,milk\nand,eggs\n")
    page.open(server)
    page.press("u")
    page.until("the dialog", lambda: page.seen("#loads-dialog"))
    page.click("#load-send")
    assert page.text("#loads-said") == "Choose files first."
    send(page, server.folder / "notes.txt")
    page.until("the failure", lambda: page.run(f"return {SENT}") == ["failed"])
    assert "notes.txt" in page.text(".job-said")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_the_dialog_fits_a_small_screen_in_either_scheme(page: Page, server: Any, scheme: str) -> None:  # noqa: F811
    page.emulate(size=SMALLEST, scheme=scheme)
    (server.folder / ("a-rather-long-name-of-a-file-" * 5 + ".csv")).write_text(DAYS)
    page.open(server)
    page.press("u")
    page.until("the dialog", lambda: page.seen("#loads-dialog"))
    send(page, *server.folder.glob("*.csv"))
    page.until("the job", lambda: page.run(f"return {SENT}") == ["done"])
    assert page.run("return document.documentElement.scrollWidth") == SMALLEST[0]
    assert page.run("const d = document.getElementById('loads-dialog'); return d.scrollWidth <= d.clientWidth")
    page.press("\ue00c")


@pytest.mark.browser
def test_a_key_that_may_only_read_is_told_so(page: Page, make_server: Any) -> None:  # noqa: F811
    server = make_server()
    key = server.run("keys", "add", "page", "--scope", "read").strip()
    server.start()
    page.open(server)
    page.until("the question", lambda: page.seen("#key-dialog"))
    page.press(key, "\ue007")
    page.until("the words for a first run", lambda: page.seen("#first-run") and not page.seen("#key-dialog"))
    page.press("u")
    page.until("the refusal", lambda: "needs write" in page.text("#loads-said"))
    assert all("401" in line or "403" in line for line in page.complaints())
    page.press("\ue00c")
