"""The programs under `examples/` run as they stand against a real server, and say what they promise."""

from pathlib import Path

import pytest

from tests.e2e.command import said_by
from tests.servers import server_with

EXAMPLES = Path(__file__).parents[2] / "examples"

SAYS = {
    "tool_conversation.py": [
        "the model reads page 1",
        "the model reads page 2",
        "the model reads page 3",
        "answer: When did the ferry come?",
        "answer: Who looked up?",
        "the first run waited 3 times for tools",
    ],
    "edit_a_step.py": [
        "0 draft: {'text': 'A draft that is much too long'}",
        "  replaced by: Short",
        "1 count: {'text': 'Short', 'words': 1}",
        "2 report: {'report': '1 words: Short'}",
        "the run has completed",
    ],
}


server = server_with()


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_an_example_says_what_it_promises(variables: dict[str, str], name: str) -> None:
    assert said_by(EXAMPLES / name, env=variables).splitlines() == SAYS[name]
