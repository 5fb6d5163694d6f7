"""The pictures of `docs/viewer`: which there are, how they are taken, and the page that shows them."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Page

from tests.browser.screens import SCREENS
from tests.browser.visitor import HEIGHT, NARROW, WIDTH, Theme

FOLDER = Path(__file__).parents[2] / "docs" / "viewer"
LARGEST_BYTES = 150_000
MOST_PICTURES = 20


class Kind(NamedTuple):
    """A size and a theme."""

    theme: Theme
    width: int

    def file_name(self, screen: str) -> str:
        """What the picture of a screen is called."""
        return f"{screen}-{self.width}-{self.theme}.png"


_TWO = (Kind("light", WIDTH), Kind("dark", NARROW))
_VERY_WIDE = Kind("light", 2560)
_FOUR = (Kind("light", WIDTH), Kind("dark", WIDTH), Kind("light", NARROW), Kind("dark", NARROW))


def kinds_of(screen: str) -> tuple[Kind, ...]:
    """The pictures that there are of a screen: all of the most important ones."""
    kinds = _FOUR if SCREENS[screen].is_important else _TWO
    return (*kinds, _VERY_WIDE) if SCREENS[screen].is_wide else kinds


def take(page: Page, screen: str) -> None:
    """Writes the pictures of the screen that a page shows."""
    FOLDER.mkdir(exist_ok=True)
    for kind in kinds_of(screen):
        page.set_viewport_size({"width": kind.width, "height": HEIGHT})
        page.emulate_media(color_scheme=kind.theme)
        (FOLDER / kind.file_name(screen)).write_bytes(_at_rest(page))


def _at_rest(page: Page) -> bytes:
    """The picture once nothing moves any more: a canvas is painted anew some frames after the theme."""
    seen = b""
    for _ in range(MOST_PICTURES):
        page.evaluate("() => new Promise((done) => setTimeout(done, 60))")
        before, seen = seen, page.screenshot(caret="hide", animations="disabled")
        if seen == before:
            return seen
    raise AssertionError(f"{page.url} does not come to rest")


def page_of_all() -> str:
    """`docs/viewer/README.md`: each screen with its pictures."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield "# The viewer"
    yield ""
    yield "Each page and state of the viewer, on runs such as `runglass demo` leaves behind. The browser"
    yield "tests take these pictures: `make test-browser ARGS=--screenshots` rewrites them and this page."
    for name, screen in SCREENS.items():
        yield ""
        yield f"## {screen.about}"
        yield ""
        for kind in kinds_of(name):
            width = 240 if kind.width == NARROW else 720
            alt = f"{kind.width} pixels wide, {kind.theme}"
            yield f'<img src="{kind.file_name(name)}" width="{width}" alt="{alt}">'
    yield ""
