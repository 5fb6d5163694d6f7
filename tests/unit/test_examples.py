"""A law has some examples in `make test`, and all of them in `make prove`."""

import pytest

from tests.examples import ALL, VARIABLE, examples
from tests.prove.__main__ import PROOFS, everything
from tests.prove.laws import law_files


def test_all_examples_are_tried_where_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert examples(3, of=7).max_examples == 3
    monkeypatch.setenv(VARIABLE, ALL)
    assert examples(3, of=7).max_examples == 7


def test_make_prove_tries_each_law_of_which_make_test_tries_only_some_examples() -> None:
    assert "laws" in PROOFS
    assert set(PROOFS) == set(everything.commands)
    assert {"test_money.py", "test_sse.py"} < {file.name for file in law_files()}
