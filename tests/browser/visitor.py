"""Somebody with a browser: one page in cookies of its own, and all that happens on it and must not."""

from collections.abc import Iterator
from contextlib import contextmanager
from re import Pattern
from typing import Literal
from urllib.parse import urlsplit

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Page,
    Request,
    Response,
    Route,
    expect,
)

Theme = Literal["light", "dark"]

WAIT_MS = 60_000
"""How long a page may take to show what is expected, on a machine with much else to do."""

WIDTH, HEIGHT = 1280, 800
NARROW = 400
"""As wide as a telephone."""

FOUR_FRAMES = """async () => {
    for (let frame = 0; frame < 4; frame += 1) {
        await new Promise((next) => requestAnimationFrame(() => setTimeout(next)));
    }
}"""

CANARY = "attacked"
"""The global variable that hostile data would set, if any of it were executed."""


class Visitor:
    """A browser context with one page, at the server with this address.

    `complaints` has what must not happen on any page: errors and warnings of the console, which has
    violations of the CSP as well, exceptions, dialogs, further windows, requests to other hosts, answers
    that say that a request was wrong, and text that was executed.
    """

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.context = context
        self.address = address
        self.complaints: list[str] = []
        self._statuses: set[int] = set()
        self._says_yes = False
        context.set_default_timeout(WAIT_MS)
        self.page = context.new_page()
        context.on("page", lambda further: self.complaints.append(f"a window opened: {further.url}"))
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        self.page.on("dialog", self._asked)
        self.page.on("request", self._requested)
        self.page.on("response", self._answered)

    def expect(self, *statuses: int) -> None:
        """Requests may be answered with these statuses of error from now on."""
        self._statuses |= set(statuses)

    def accept_dialogs(self) -> None:
        """Says yes to each question from now on."""
        self._says_yes = True

    def sign_in(self, key: str) -> None:
        """Has the session of a key from now on, without the form."""
        answer = self.context.request.post(
            f"{self.address}/api/v1/viewer/session", headers={"Authorization": f"Bearer {key}"}
        )
        assert answer.status == 204, answer.text()
        # The half of the session that is no cookie is kept by the pages of this server alone.
        proof = f"localStorage.setItem('runglass.proof', {answer.headers['x-viewer-proof']!r})"
        self.context.add_init_script(f"if (location.origin === {self.address!r}) {proof};")

    def open(self, path: str) -> Page:
        """The page at this path of the server, once its main part is shown."""
        self.page.goto(f"{self.address}{path}", wait_until="commit")
        expect(self.page.locator("main")).to_be_visible()
        return self.page

    def keys(self, *names: str) -> None:
        """Presses keys, one after the other, as the keyboard names them."""
        for name in names:
            self.page.keyboard.press(name)

    def settle(self) -> None:
        """Returns once what has been set off so far is painted."""
        self.page.evaluate(FOUR_FRAMES)

    def require_quiet(self) -> None:
        """Raises AssertionError with what has happened on the page and must not."""
        self.settle()
        if self.page.evaluate(f"'{CANARY}' in window || '{CANARY}' in {{}}"):
            self.complaints.append("text was executed")
        assert not self.complaints, "\n".join(self.complaints)

    def _heard(self, message: ConsoleMessage) -> None:
        # The browser's own line about a refused request; `_answered` judges by the status.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(f"console: {message.text} ({message.location})")

    def _asked(self, dialog: Dialog) -> None:
        if self._says_yes and dialog.type == "confirm":
            return dialog.accept()
        self.complaints.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def _requested(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme not in ("data", "blob") and f"{url.scheme}://{url.netloc}" != self.address:
            self.complaints.append(f"a request to another host: {request.url}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400 and response.status not in self._statuses:
            self.complaints.append(f"{response.status} for {response.request.method} {response.url}")


def unanswered(_: Route) -> None:
    """The server takes its time."""


@contextmanager
def held(page: Page, url: str | Pattern[str]) -> Iterator[None]:
    """Requests to such addresses are not answered before the block ends."""
    routes: list[Route] = []
    page.route(url, lambda route: routes.append(route))
    yield
    # Those of which the browser tells only now are not held either.
    page.route(url, lambda route: route.continue_())
    for route in routes:
        route.continue_()


@contextmanager
def visiting(browser: Browser, address: str, key: str | None = None) -> Iterator[Visitor]:
    """A visitor, signed in where there is a key. Raises AssertionError for what must not happen meanwhile."""
    with browser.new_context(
        viewport={"width": WIDTH, "height": HEIGHT},
        color_scheme="light",
        reduced_motion="reduce",
        locale="en-GB",
        timezone_id="UTC",
    ) as opened:
        visitor = Visitor(opened, address)
        if key is None:
            visitor.expect(401)
        else:
            visitor.sign_in(key)
        yield visitor
        visitor.require_quiet()
        # An answer that is still being fetched for a page would fail in the test after this one.
        visitor.page.unroute_all(behavior="ignoreErrors")
