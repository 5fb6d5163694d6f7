"""Pages and help texts use the field's words: one for each thing, and none that has to be read twice."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CONTRACTS = ROOT / "docs" / "spec"
"""Its words are those that third parties rely on."""

INSTEAD = {
    # A second word for run, step or attempt.
    r"executions?(?! ids?\b)": "run; the wire's `executionId` is the execution id",
    r"(a|each|one|every|further|another) tr(y|ies)": "attempt",
    r"walk(s|ed|ing)?": "step through, or execute: a walk is neither a run nor a step-through",
    r"(try|tries|tried|trying) again": "retry",
    # Plain words that hide what happens.
    r"(go|goes|going|went|gone) on": "continue or resume; an active run, not one that goes on",
    r"(cut|cuts|cutting) off": "abort or interrupt",
    r"(break|breaks|broke|broken|breaking) off": "abort",
    r"(set|sets|put|puts) (aside|away)": "quarantine (a run), evict (a value)",
    r"let go": "release",
    r"(take|takes|taken|took) in": "accept or receive",
    r"for (good|ever)": "permanently, forever",
    r"told": "report, say or send",
    r"anew": "again, new, or re- with the verb",
    r"whoever": "the component or the caller",
    r"mistakes?": "error",
    r"beware": "warning",
}
"""What is not said, and the word that is; see the glossary of docs/concepts.md."""

_UNSAID = re.compile("|".join(rf"\b(?:{each})\b" for each in INSTEAD), re.IGNORECASE)
_QUOTED = re.compile(r"^```.*?^```|<!-- bench.*?: end -->|`[^`\n]*`", re.MULTILINE | re.DOTALL)
"""Code, and tables that the bench writes."""


def unsaid(text: str) -> list[str]:
    """Each of these words in the text, with what stands around it."""
    prose = _QUOTED.sub("``", text)
    return [prose[max(0, found.start() - 40) : found.end() + 20] for found in _UNSAID.finditer(prose)]


def pages() -> list[Path]:
    found = [*ROOT.glob("*.md"), *(ROOT / "deploy").glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return sorted(page for page in found if CONTRACTS not in page.parents)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_says_what_is_meant(page: Path) -> None:
    assert unsaid(page.read_text("utf-8")) == [], INSTEAD
