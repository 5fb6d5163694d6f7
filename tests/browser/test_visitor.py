"""What must not happen on a page is noticed where it happens."""

import pytest
from playwright.sync_api import Browser

from runglass.testing import RunningServer
from tests.browser.visitor import CANARY, visiting

WRONGS = {
    "console: oh no": "console.error('oh no')",
    "exception: oh no": "setTimeout(() => { throw new Error('oh no'); })",
    "a dialog: oh no": "setTimeout(() => alert('oh no'))",
    "404 for GET": "await fetch('/nothing')",
    "connect-src": "await fetch('http://127.0.0.1:9/').catch(() => {})",
    "img-src": "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))",
    "script-src": "Object.assign(document.createElement('a'), {href: 'javascript:1'}).click()",
    "TrustedHTML": "try { document.body.innerHTML = '<b>'; } catch { /* the browser has refused it */ }",
    "a window opened": "await new Promise((done) => { window.open('/').onload = done; })",
    "text was executed": f"window.{CANARY} = 1",
}


def run_on_a_page(browser: Browser, address: str, script: str) -> None:
    with visiting(browser, address) as visitor:
        visitor.open("/").evaluate(f"async () => {{ {script} }}")


@pytest.mark.parametrize("wrong", WRONGS)
def test_whatever_goes_wrong_on_a_page_fails_the_test(
    browser: Browser, server: RunningServer, wrong: str
) -> None:
    with pytest.raises(AssertionError, match=wrong):
        run_on_a_page(browser, server.address, WRONGS[wrong])
