"""What axe-core finds wrong on a page for people who cannot see it, or not well, or use no mouse."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

_SOURCE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text("utf-8")

OF_COLOURS = ("color-contrast", "link-in-text-block")
"""The rules whose outcome may be another one in other colours."""


def violations(page: Page, rules: Sequence[str] = ()) -> list[str]:
    """A line for each element and rule that it breaks, of these rules, or of all that axe has.

    Those for best practice are among them.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(_SOURCE)
    options = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
    found: dict[str, Any] = page.evaluate("options => axe.run(options)", options)
    return [
        f"{violation['id']} ({violation['impact']}): {violation['help']}: {node['html'][:200]}"
        f" – {node['failureSummary']}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]
