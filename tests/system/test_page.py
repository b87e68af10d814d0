"""The page at `/`, in Chromium, against a server with real daily bars and made-up minutes."""

from __future__ import annotations

import base64
import hashlib
import random
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from tapehouse.dashboard import CONTENT_SECURITY_POLICY, STATIC

ROOT = Path(__file__).parents[2]
NEW_YORK = ZoneInfo("America/New_York")
DESKTOP = (1280, 800)
SMALLEST = (360, 640)
HOLE = (datetime(2024, 1, 10, 16, 0, tzinfo=UTC), datetime(2024, 1, 10, 16, 30, tzinfo=UTC))
FIRST_MINUTE = datetime(2024, 1, 2, 14, 30, tzinfo=UTC)
LAST_MINUTE = datetime(2024, 2, 26, 20, 59, tzinfo=UTC)
INSTRUMENTS = """
[[instruments]]
pattern = "MINS"
calendar = "XNYS"
timezone = "America/New_York"
"""


def _minutes() -> Iterator[str]:
    """38 sessions of one-minute bars of MINS, without the half hour of HOLE."""
    yield "timestamp,symbol,open,high,low,close,volume"
    chance = random.Random(7)
    price = 100.0
    for day in (date(2024, 1, 2) + timedelta(n) for n in range(56)):
        opening = datetime.combine(day, time(9, 30), NEW_YORK).astimezone(UTC)
        if day.weekday() > 4 or day in (date(2024, 1, 15), date(2024, 2, 19)):
            continue
        for minute in (opening + timedelta(minutes=n) for n in range(390)):
            close = round(price * (1 + chance.gauss(0, 0.001)), 2)
            if not HOLE[0] <= minute < HOLE[1]:
                low, high = min(price, close) - 0.05, max(price, close) + 0.05
                yield f"{minute.isoformat()},MINS,{price},{high:.2f},{low:.2f},{close},{minute.minute + 1}"
            price = close


@pytest.fixture(scope="session")
def daily(make_server: Any) -> Any:
    """A folder with the example's daily bars, to copy: nothing serves it."""
    server = make_server()
    examples = ROOT / "examples"
    server.run("load", examples / "data" / "us-daily.csv.gz", "--instruments", examples / "instruments.toml")
    return server


@pytest.fixture(scope="session")
def loaded(make_server: Any, daily: Any) -> Any:
    """A server with the example's daily bars and the minutes of MINS."""
    server = make_server(like=daily)
    (server.folder / "minutes.csv").write_text("\n".join(_minutes()))
    (server.folder / "instruments.toml").write_text(INSTRUMENTS)
    server.run("load", "minutes.csv", "--instruments", "instruments.toml")
    server.start()
    return server


class Page:
    """The page in the browser: what a reader does, and what a reader sees."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, server: Any, address: str = "") -> None:
        """Load it afresh, at an address behind the `#`."""
        self.driver.get("about:blank")
        self.driver.get(f"{server.url}#{address}")

    def show(self, server: Any, symbol: str, rest: str = "interval=auto") -> None:
        """Load it, and wait until the symbol's bars are on the chart."""
        self.open(server, f"symbol={symbol}&{rest}")
        self.until(f"{symbol} on show", lambda: self.title.startswith(f"{symbol} ") and self.text("[data-value=open]"))
        self.settled()

    def emulate(self, *, size: tuple[int, int] = DESKTOP, scheme: str = "dark") -> None:
        """The size of the window in CSS pixels, and whether the system is dark or light."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def click(self, selector: str, nth: int = 0) -> None:
        self.all(selector)[nth].click()

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0])?.textContent.trim() ?? ''", selector))

    def seen(self, selector: str) -> bool:
        return any(element.is_displayed() for element in self.all(selector))

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, describe: str, condition: Any) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, 30, 0.05).until(lambda _: condition(), describe)

    def settled(self) -> None:
        """Wait until nothing is being fetched and the address says what is shown."""
        quiet = (
            "const done = arguments[0]; let last = ''; let same = 0;"
            "const look = () => { const now = location.hash + document.getElementById('busy').hidden;"
            "same = now === last && now.endsWith('true') ? same + 1 : 0; last = now;"
            "same >= 4 ? done() : setTimeout(look, 80); }; look();"
        )
        self.driver.execute_async_script(quiet)

    @property
    def title(self) -> str:
        return str(self.driver.title)

    @property
    def symbol(self) -> str:
        return self.title.split(" ")[0]

    @property
    def interval(self) -> str:
        return self.title.split(" ")[1]

    @property
    def span(self) -> tuple[datetime, datetime]:
        """What the address says is visible."""
        found = re.search(r"from=([^&]+)&to=([^&]+)", self.driver.current_url)
        assert found, self.driver.current_url
        return datetime.fromisoformat(found[1]), datetime.fromisoformat(found[2])

    def fetched(self) -> list[str]:
        """The bars that were asked for since the page was loaded: query strings."""
        entries = "performance.getEntriesByType('resource').map((entry) => entry.name)"
        return [url.split("?")[1] for url in self.run(f"return {entries}") if "/v1/bars?" in url]

    def pixels(self, colour: str, within: str) -> int:
        """How many canvas pixels have the colour of a CSS variable."""
        return int(
            self.run(
                "const copy = document.createElement('canvas').getContext('2d', {willReadFrequently: true});"
                "copy.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(arguments[0]);"
                "copy.fillRect(0, 0, 1, 1); const want = copy.getImageData(0, 0, 1, 1).data.join(); let count = 0;"
                "for (const canvas of document.querySelectorAll(arguments[1] + ' canvas, canvas' + arguments[1])) {"
                "  Object.assign(copy.canvas, {width: canvas.width, height: canvas.height});"
                "  copy.drawImage(canvas, 0, 0);"
                "  const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);"
                "  for (let i = 0; i < data.length; i += 4) if (data.slice(i, i + 4).join() === want) count++;"
                "} return count;",
                colour,
                within,
            )
        )

    def complaints(self) -> list[str]:
        """What the browser's console says of errors and of the policy since the last call."""
        return [line["message"] for line in self.driver.get_log("browser") if line["level"] in ("SEVERE", "WARNING")]


@pytest.fixture
def page(browser: Any) -> Iterator[Page]:
    """The page, with nothing remembered; at the end the console must be empty, or have been read by the test."""
    page = Page(browser)
    page.emulate()
    page.complaints()
    yield page
    assert page.complaints() == []
    if page.driver.current_url.startswith("http"):
        page.run("localStorage.clear(); sessionStorage.clear()")
    page.driver.get("about:blank")


@pytest.mark.browser
def test_candles_and_volume_are_drawn(page: Page, loaded: Any) -> None:
    page.show(loaded, "AAPL")
    assert page.interval == "1d"
    assert page.pixels("--up", "#chart") > 300
    assert page.pixels("--down", "#chart") > 300
    assert [page.text(f"[data-value={name}]") for name in ("symbol", "time", "close", "volume")] == [
        "AAPL",
        "2013-03-01",
        "430.47",
        "19.73M",
    ]


@pytest.mark.browser
def test_the_page_says_what_the_store_holds(page: Page, loaded: Any) -> None:
    page.show(loaded, "AAPL")
    stats = httpx.get(f"{loaded.url}v1/stats").json()["store"]
    assert page.text("[data-fact=symbols]") == "6"
    assert page.text("[data-fact=rows]") == f"{stats['rows']:,}"
    assert page.text("[data-fact=first]") == "2000-03-01"
    assert page.text("[data-fact=per-row]").endswith(" B")


@pytest.mark.browser
def test_a_symbol_is_found_and_chosen_by_keyboard(page: Page, loaded: Any) -> None:
    page.show(loaded, "AAPL")
    page.press("/", "M", "S")
    assert page.text("#count") == "1 of 6"
    page.press("\ue007")
    page.until("MSFT", lambda: page.symbol == "MSFT")
    page.settled()
    assert page.text("[data-value=symbol]") == "MSFT"
    page.press("k")
    page.until("the symbol before it", lambda: page.symbol == "MINS")
    page.driver.back()
    page.until("the one that was left", lambda: page.symbol == "MSFT")
    page.settled()


@pytest.mark.browser
def test_arrow_keys_walk_the_list(page: Page, loaded: Any) -> None:
    page.show(loaded, "AAPL")
    page.press("/")
    assert page.run("return document.activeElement.id") == "search"
    page.press("\ue015", "\ue015")
    active = page.run("return document.getElementById(document.activeElement.getAttribute('aria-activedescendant'))")
    assert active.get_attribute("data-symbol") == "GOOG"
    page.press("\ue007")
    page.until("GOOG", lambda: page.symbol == "GOOG")
    page.settled()


@pytest.mark.browser
def test_the_last_of_many_quick_choices_wins(page: Page, loaded: Any) -> None:
    page.show(loaded, "AAPL")
    page.press(*"jjjjkjj")
    page.until("the last one", lambda: page.symbol == "MSFT")
    page.settled()
    assert page.text("[data-value=symbol]") == "MSFT"
    assert page.text(".symbol[aria-selected=true] .symbol-name") == "MSFT"
    strip = "return document.querySelector('.coverage-strip').ariaLabel"
    page.until("its coverage", lambda: page.run(strip).endswith(", 0 gaps"))
    assert "symbol=MSFT&" in page.driver.current_url


@pytest.mark.browser
def test_zooming_in_loads_finer_bars_and_out_coarser_ones(page: Page, loaded: Any) -> None:
    page.show(loaded, "MINS")
    assert page.interval == "1d"
    assert page.text("[data-value=made-from]") == "made from 1m"
    assert not any("interval=1m" in query.split("&") for query in page.fetched())
    widest = page.span
    for _ in range(10):
        page.press(*"+++")
        page.settled()
        if page.interval == "1m":
            break
    assert page.interval == "1m"
    assert any("interval=1m" in query.split("&") for query in page.fetched())
    assert page.pixels("--up", "#chart") > 300
    assert not page.seen("[data-value=made-from]")
    assert widest[0] < page.span[0] < page.span[1] < widest[1]
    for _ in range(5):
        page.press(*"----")
        page.settled()
    assert page.interval in ("30m", "1h", "4h")
    assert page.span[0] <= FIRST_MINUTE < LAST_MINUTE <= page.span[1]


@pytest.mark.browser
def test_zooming_out_ends_with_all_there_is_and_stays(page: Page, loaded: Any) -> None:
    page.show(loaded, "AAPL")
    for _ in range(16):
        page.press("-")
        page.settled()
    whole = page.span
    first, last = datetime(2000, 3, 1, 5, tzinfo=UTC), datetime(2013, 3, 1, 5, tzinfo=UTC)
    assert whole[0] <= first
    assert last <= whole[1] < last + (last - first) / 10
    page.press("-", "-")
    page.settled()
    assert page.span == whole


@pytest.mark.browser
def test_the_wheel_zooms(page: Page, loaded: Any) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    page.show(loaded, "MINS")
    middle = ScrollOrigin.from_element(page.all("#chart")[0])
    for _ in range(20):
        ActionChains(page.driver).scroll_from_origin(middle, 0, -100).perform()
    page.settled()
    assert page.interval in ("4h", "1h", "30m", "15m")


@pytest.mark.browser
def test_panning_back_fetches_what_is_missing_once(page: Page, loaded: Any) -> None:
    page.show(loaded, "AAPL", "interval=1d")
    for _ in range(60):
        page.press("\ue012")
    page.settled()
    assert page.span[0] < datetime(2008, 1, 1, tzinfo=UTC)
    asked = page.fetched()
    assert len([query for query in asked if "order=desc" in query and "end=" in query]) >= 2
    for _ in range(60):
        page.press("\ue014")
    page.settled()
    assert page.fetched() == asked
    assert len(set(asked)) == len(asked)


@pytest.mark.browser
def test_digits_choose_intervals(page: Page, loaded: Any) -> None:
    page.show(loaded, "MINS")
    for key, interval in [("2", "5m"), ("5", "1h"), ("8", "1w"), ("9", "1mo")]:
        page.press(key)
        page.until(interval, lambda interval=interval: page.interval == interval)
        assert page.text("#intervals [aria-checked=true]") == interval
    page.press("0")
    assert page.text("#intervals [aria-checked=true]") == "Auto"
    page.settled()


@pytest.mark.browser
def test_what_cannot_be_made_cannot_be_chosen(page: Page, loaded: Any) -> None:
    page.show(loaded, "AAPL")
    page.press("1")
    page.settled()
    assert page.interval == "1d"
    disabled = [button.text for button in page.all("#intervals [aria-disabled=true]") if button.is_displayed()]
    assert disabled == ["1m", "5m", "15m", "30m", "1h", "4h"]


@pytest.mark.browser
def test_incomplete_bars_are_hollow_and_counted(page: Page, loaded: Any) -> None:
    page.show(loaded, "MINS", "interval=1h&from=2024-01-10T14:00Z&to=2024-01-10T20:00Z")
    assert page.text("[data-value=made-from]") == "made from 1m"
    assert page.text("[data-value=incomplete]") == "1 incomplete"


@pytest.mark.browser
def test_coverage_shows_what_is_missing_and_leads_there(page: Page, loaded: Any) -> None:
    page.show(loaded, "MINS")
    assert page.pixels("--held", ".coverage-strip") > 1_000
    assert page.run("return document.querySelector('.coverage-strip').ariaLabel").endswith(", 1 gap")
    page.click(".coverage-gaps")
    assert page.text(".gap-span") == "2024-01-10 16:00 to 16:29"
    assert page.text(".gap-bars") == "30"
    page.press("\ue007")
    page.until("minutes", lambda: page.interval == "1m")
    page.settled()
    start, end = page.span
    assert HOLE[0] - timedelta(hours=2) < start < HOLE[0] < HOLE[1] < end < HOLE[1] + timedelta(hours=2)


@pytest.mark.browser
def test_a_click_on_the_strip_goes_there(page: Page, loaded: Any) -> None:
    from selenium.webdriver import ActionChains

    page.show(loaded, "AAPL")
    ActionChains(page.driver).move_to_element(page.all(".coverage-strip")[0]).click().perform()
    page.until("the middle of the history", lambda: page.span[1] < datetime(2008, 1, 1, tzinfo=UTC))
    page.settled()
    assert page.span[0] < datetime(2006, 8, 31, tzinfo=UTC) < page.span[1]


@pytest.mark.browser
def test_the_address_keeps_the_view(page: Page, loaded: Any) -> None:
    page.show(loaded, "IBM", "interval=1d&from=2008-09-01&to=2009-03-01")
    start, end = page.span
    assert abs(start - datetime(2008, 9, 1, tzinfo=UTC)) < timedelta(days=3)
    assert abs(end - datetime(2009, 3, 1, tzinfo=UTC)) < timedelta(days=3)
    page.driver.refresh()
    page.until("IBM again", lambda: page.symbol == "IBM" and page.text("[data-value=open]"))
    page.settled()
    assert abs(page.span[0] - start) < timedelta(days=1)
    assert abs(page.span[1] - end) < timedelta(days=1)


@pytest.mark.browser
def test_a_range_without_bars_leads_to_the_nearest(page: Page, loaded: Any) -> None:
    page.show(loaded, "AAPL", "interval=1d&from=1990-01-01&to=1990-06-01")
    assert page.text("#notice-title") == "No bars there."
    assert page.span[1] > datetime(2000, 3, 1, tzinfo=UTC)
    assert page.pixels("--up", "#chart") > 100


@pytest.mark.browser
def test_a_symbol_that_is_not_there_is_named(page: Page, loaded: Any) -> None:
    page.open(loaded, "symbol=<b>NOPE</b>&interval=1d")
    page.until("the notice", lambda: page.seen("#notice"))
    assert page.text("#notice-detail") == "nothing is stored of <b>NOPE</b>."
    page.settled()
    assert page.symbol == "AAPL"


@pytest.mark.browser
@pytest.mark.parametrize(
    ("said", "title", "detail"),
    [
        ("interval=zzz&from=x&to=2024", "Not understood:", "interval=zzz, from=x, to=2024 of the address."),
        (
            "interval=1d&from=2013-01-01&to=2012-01-01",
            "Not understood:",
            "from=2013-01-01, to=2012-01-01 of the address.",
        ),
        ("interval=1m", "No 1m bars of AAPL.", "These are others."),
        ("interval=1d&from=1900-01-01&to=2100-01-01", "Too long for this interval.", "This is a part of it."),
    ],
)
def test_what_an_address_says_in_vain_is_told(page: Page, loaded: Any, said: str, title: str, detail: str) -> None:
    page.show(loaded, "AAPL", said)
    page.until("the notice", lambda: page.seen("#notice"))
    assert (page.text("#notice-title"), page.text("#notice-detail")) == (title, detail)


@pytest.mark.browser
def test_on_a_narrow_screen_the_interval_on_show_is_in_sight(page: Page, loaded: Any) -> None:
    page.emulate(size=SMALLEST)
    page.show(loaded, "MINS", "interval=1mo")
    for place in ("[aria-checked=true]", ".on-show"):
        row, button = (
            page.run(f"return document.querySelector('{q}').getBoundingClientRect().toJSON()")
            for q in (
                "#intervals",
                f"#intervals {place}",
            )
        )
        assert row["left"] <= button["left"] < button["right"] <= row["right"]
        page.press("0")
        page.settled()


@pytest.mark.browser
def test_dark_and_light_follow_the_system_until_told(page: Page, loaded: Any) -> None:
    def background() -> str:
        return str(page.run("return getComputedStyle(document.body).backgroundColor"))

    page.show(loaded, "AAPL")
    assert background() == "rgb(11, 15, 20)"
    page.emulate(scheme="light")
    assert background() == "rgb(244, 246, 248)"
    page.until("the chart in light colours", lambda: page.pixels("--up", "#chart") > 300)
    page.press("t")
    assert background() == "rgb(11, 15, 20)"
    page.until("the chart in dark colours", lambda: page.pixels("--up", "#chart") > 300)
    page.driver.refresh()
    assert background() == "rgb(11, 15, 20)"
    page.settled()


@pytest.mark.browser
@pytest.mark.parametrize("size", [SMALLEST, (390, 844), (844, 390), (1024, 768), (2560, 1440)])
def test_it_fits_the_window(page: Page, loaded: Any, size: tuple[int, int]) -> None:
    page.emulate(size=size)
    page.show(loaded, "MINS")
    assert page.run("return document.documentElement.scrollWidth") == size[0]
    assert page.run("return document.documentElement.scrollHeight") == size[1]
    assert page.run("return document.getElementById('chart').clientHeight") > 200


@pytest.mark.browser
def test_on_a_small_screen_the_symbols_are_in_a_drawer(page: Page, loaded: Any) -> None:
    page.emulate(size=SMALLEST)
    page.show(loaded, "AAPL")
    assert not page.seen("#search")
    page.click("#open-symbols")
    page.until("the drawer", lambda: page.seen("#search"))
    page.press("GOO", "\ue007")
    page.until("GOOG", lambda: page.symbol == "GOOG" and not page.seen("#search"))
    page.settled()


@pytest.mark.browser
def test_new_rows_show_by_themselves(page: Page, make_server: Any) -> None:
    server = make_server()
    server.start()
    page.open(server)
    page.until("the words for a first run", lambda: page.seen("#first-run"))
    assert page.text("#command").startswith("tapehouse load ")
    bars = {"symbol": ["NEW"] * 2, "timestamp": ["2024-01-02T00:00:00Z", "2024-01-03T00:00:00Z"]}
    bars |= {name: [10.5, 11.0] for name in ("open", "high", "low", "close", "volume")}
    httpx.post(f"{server.url}v1/bars?interval=1d", json={"columns": bars}).raise_for_status()
    page.until("the first symbol", lambda: page.symbol == "NEW" and not page.seen("#first-run"))
    assert page.text("[data-value=close]") == "11.00"
    later = {name: values[1:] for name, values in bars.items()} | {"timestamp": ["2024-01-04T00:00:00Z"]}
    httpx.post(f"{server.url}v1/bars?interval=1d", json={"columns": later}).raise_for_status()
    page.until("the newer bar", lambda: page.text("[data-value=time]") == "2024-01-04")
    assert page.text("[data-fact=rows]") == "3"


@pytest.mark.browser
def test_what_is_deleted_is_gone_from_the_page(page: Page, make_server: Any) -> None:
    server = make_server()
    server.start()
    for symbol in ("GONE", "STAY"):
        bars = {"symbol": [symbol] * 2, "timestamp": ["2024-01-02T00:00:00Z", "2024-01-03T00:00:00Z"]}
        bars |= {name: [10.5, 11.0] for name in ("open", "high", "low", "close", "volume")}
        httpx.post(f"{server.url}v1/bars?interval=1d", json={"columns": bars}).raise_for_status()
    page.show(server, "GONE")

    server.run("delete", "GONE", "--interval", "1d", "--yes")
    page.until("the other symbol", lambda: page.symbol == "STAY")
    assert page.text("#notice-detail") == "nothing is stored of GONE."

    server.run("delete", "STAY", "--interval", "1d", "--yes")
    page.until("the words for a first run", lambda: page.seen("#first-run"))
    assert page.title == "Tapehouse"
    assert [page.text(f"[data-value={name}]") for name in ("symbol", "close", "interval")] == ["", "", ""]
    assert page.text("#strips") == ""
    assert page.text("[data-fact=rows]") == "0"


@pytest.mark.browser
def test_a_single_session_is_shown_whole_and_fills_the_chart(page: Page, make_server: Any) -> None:
    server = make_server()
    header, *rows = _minutes()
    (server.folder / "session.csv").write_text("\n".join([header, *rows[:390]]))
    server.run("load", "session.csv")
    server.start()
    page.show(server, "MINS", "")
    assert page.interval in ("1m", "5m")
    first, last = page.span
    assert first <= FIRST_MINUTE < LAST_MINUTE.replace(month=1, day=2) <= last + timedelta(minutes=5)


@pytest.mark.browser
def test_a_problem_is_shown_in_the_words_of_the_server(page: Page, make_server: Any, daily: Any) -> None:
    server = make_server("--max-page-rows", "100", like=daily)
    server.start()
    page.open(server, "symbol=AAPL&interval=1d")
    page.until("the problem", lambda: page.seen("#notice"))
    said = httpx.get(f"{server.url}v1/bars?symbols=AAPL&interval=1d&limit=500").json()
    assert page.text("#notice-title") == said["title"]
    assert page.text("#notice-detail") == said["detail"]
    assert any("413" in line for line in page.complaints())


@pytest.mark.browser
def test_a_server_that_went_away_is_missed_and_welcomed_back(page: Page, make_server: Any, daily: Any) -> None:
    server = make_server(like=daily)
    server.start()
    page.show(server, "AAPL")
    server.stop()
    page.press("j")
    page.until("the notice", lambda: page.seen("#notice"))
    assert page.text("#notice-title") == "No answer"
    server.start()
    page.click("#notice-retry")
    page.until("the next symbol", lambda: page.symbol == "FB" and page.text("[data-value=open]"))
    assert not page.seen("#notice")
    page.settled()
    assert all("ERR_CONNECTION_REFUSED" in line for line in page.complaints())


@pytest.mark.browser
def test_a_key_is_asked_for_and_kept_for_the_tab(page: Page, make_server: Any, daily: Any) -> None:
    server = make_server(like=daily)
    key = re.search(r"th_\S+", server.run("keys", "add", "page", "--scope", "read"))
    assert key
    server.start()
    page.open(server, "symbol=IBM")
    page.until("the question", lambda: page.seen("#key-dialog"))
    page.press("th_wrong", "\ue007")
    page.until("the question again", lambda: page.seen("#key-dialog") and page.run("return key.value") == "")
    page.press(key.group(), "\ue007")
    page.until("IBM", lambda: page.symbol == "IBM" and page.text("[data-value=open]"))
    assert not page.seen("#key-dialog")
    page.driver.refresh()
    page.until("IBM without a question", lambda: page.symbol == "IBM" and page.text("[data-value=open]"))
    page.settled()
    assert page.run("return Object.values(localStorage).includes(arguments[0])", key.group()) is False
    assert all("401" in line for line in page.complaints())


@pytest.mark.browser
def test_ten_thousand_symbols_with_any_names(page: Page, make_server: Any) -> None:
    server = make_server()
    names = ["BTC/USD", "^GSPC", "ES=F", "A&B#C%20+D", *(f"S{n:05d}" for n in range(10_000))]
    rows = [f"{name},2024-01-02,1,1,1,1,1" for name in names]
    (server.folder / "many.csv").write_text("\n".join(["symbol,date,open,high,low,close,volume", *rows]))
    server.run("load", "many.csv", "--interval", "1d")
    server.start()
    page.open(server)
    page.until("the list", lambda: page.text("#count") == "10,004 symbols")
    assert len(page.all(".symbol")) < 60
    for name in ["S09999", *names[:4]]:
        page.press("/", name, "\ue007")
        page.until(name, lambda name=name: page.text("[data-value=symbol]") == name)
        page.settled()
        assert page.text("[data-value=close]") == "1.00"
    assert page.text(".symbol.active .symbol-name") == names[3]
    page.driver.refresh()
    page.until("the same after a reload", lambda: page.text("[data-value=symbol]") == names[3])
    page.settled()


@pytest.mark.browser
def test_every_control_has_a_name(page: Page, loaded: Any) -> None:
    page.show(loaded, "AAPL")
    nameless = page.run(
        "return [...document.querySelectorAll('button, input, [role=img], [role=listbox], dialog')].filter((node) =>"
        " !(node.ariaLabel || node.textContent.trim() || node.labels?.length || node.getAttribute('aria-labelledby')))"
        ".map((node) => node.outerHTML)"
    )
    assert nameless == []
    assert page.text("#status").startswith("AAPL, 1d, ")


def test_the_page_is_served_under_its_policy(loaded: Any) -> None:
    for path in ("", "static/style.css", "static/app.js", "static/vendor/lightweight-charts.mjs"):
        response = httpx.get(f"{loaded.url}{path}")
        assert response.status_code == 200
        assert response.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY


def test_the_policy_admits_the_style_of_the_logo_and_no_other() -> None:
    library = (STATIC / "vendor" / "lightweight-charts.mjs").read_text()
    (style,) = re.findall(r'createElement\("style"\),this\.\w+\.innerText="([^"]*)"', library)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert re.findall(r"'sha256-([^']*)'", CONTENT_SECURITY_POLICY) == [digest]
    assert hashlib.sha256(library.encode()).hexdigest() in (STATIC / "vendor" / "README.md").read_text()


def test_every_file_that_the_page_names_is_there() -> None:
    index = (STATIC / "index.html").read_text()
    for name in re.findall(r'(?:src|href)="(static/[^"]+)"', index):
        assert (STATIC.parent / name).is_file(), name
    for script in [*STATIC.glob("*.js"), *STATIC.glob("[!v]*/*.js")]:
        for name in re.findall(r'from "(\.[^"]+)"', script.read_text()):
            assert (script.parent / name).is_file(), f"{script.name}: {name}"


def _luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb`, as in WCAG 2.2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_what_it_is_written_on(theme: str) -> None:
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", (STATIC / "style.css").read_text())
    colours = {name: light if theme == "light" else dark for name, light, dark in pairs}
    written = {
        "text": ["page", "surface", "raised", "hover", "accent-soft", "danger-soft"],
        "text-muted": ["page", "surface", "raised", "hover", "accent-soft"],
        "accent": ["surface", "raised"],
        "up-text": ["surface"],
        "down-text": ["surface"],
        "warn-text": ["warn-soft"],
    }
    for text, grounds in written.items():
        for ground in grounds:
            low, high = sorted([_luminance(colours[text]), _luminance(colours[ground])])
            assert (high + 0.05) / (low + 0.05) >= 4.5, f"{text} on {ground}"
