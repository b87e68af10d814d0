"""Takes the pictures of the page again: `.venv/bin/python docs/images/take.py`. Needs Chromium and its driver."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
TAPEHOUSE = Path(sys.executable).parent / "tapehouse"
VIEW = "#symbol=AAPL&interval=1d&from=2012-01-09&to=2012-11-26"
WIDTH, HEIGHT, SCALE = 1280, 800, 1.5
LIMIT_S = 30


@contextmanager
def _server(folder: str) -> Iterator[str]:
    """The address of a server with the examples."""
    store = ["--store", f"duckdb:///{folder}/data"]
    instruments = ["--instruments", EXAMPLES / "instruments.toml"]
    subprocess.run([TAPEHOUSE, "load", EXAMPLES / "data" / "us-daily.csv.gz", *instruments, *store], check=True)
    subprocess.run([TAPEHOUSE, "compact", "--everything", *store], check=True)
    command = [TAPEHOUSE, "serve", *store, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            yield next(word for line in process.stdout for word in line.split() if word.startswith("http://"))
        finally:
            process.terminate()


@contextmanager
def _browser(folder: str) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    flags = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        f"--force-device-scale-factor={SCALE}",
    ]
    for flag in [*flags, f"--user-data-dir={folder}/browser"]:
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def _take(driver: Any, address: str, scheme: str) -> None:
    metrics = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": SCALE, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    driver.get("about:blank")
    driver.get(address + VIEW)
    drawn = "return document.title.startsWith('AAPL') && document.querySelector('.coverage').innerText.includes('gaps')"
    WebDriverWait(driver, LIMIT_S).until(lambda _: driver.execute_script(drawn))
    driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    driver.save_screenshot(str(HERE / f"page-{scheme}.png"))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, _server(folder) as address, _browser(folder) as driver:
        for scheme in ("dark", "light"):
            _take(driver, address, scheme)


if __name__ == "__main__":
    main()
