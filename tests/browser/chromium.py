"""Chromium as the system has it: looked for on the PATH, and never downloaded."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Chromium's own sandbox refuses to work for root, as which CI runs.
ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu")
MISSING = "Chromium was not found on the PATH; on Debian: apt-get install chromium"


def chromium_path() -> str | None:
    """The path of the Chromium of this machine, None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def launched() -> Iterator[Browser]:
    """A browser without a window, until the block ends. Raises RuntimeError where there is no Chromium."""
    path = chromium_path()
    if path is None:
        raise RuntimeError(MISSING)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


if __name__ == "__main__":
    sys.exit(None if chromium_path() else MISSING)
