"""What axe-core finds wrong on a page for people who cannot see it, or not well, or use no mouse."""

from pathlib import Path
from typing import Any

from playwright.sync_api import Page

_SOURCE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text("utf-8")


def violations(page: Page) -> list[str]:
    """A line for each element and rule that it breaks; all rules of axe, those for best practice included."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(_SOURCE)
    found: dict[str, Any] = page.evaluate("axe.run({resultTypes: ['violations']})")
    return [
        f"{violation['id']} ({violation['impact']}): {violation['help']}: {node['html'][:200]}"
        f" – {node['failureSummary']}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]
