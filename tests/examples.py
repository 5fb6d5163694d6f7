"""How many examples a law is tried on: some in `make test`, all of them in `make prove ARGS=laws`."""

import os

from hypothesis import HealthCheck, settings

VARIABLE, ALL = "RUNGLASS_TEST_EXAMPLES", "all"
"""The variable of the environment that says so, and its value for all examples."""


def all_wanted() -> bool:
    """Whether this is `make prove`, which leaves out nothing."""
    return os.environ.get(VARIABLE) == ALL


def examples(some: int, *, of: int) -> settings:
    """Tries a law on `some` examples, nearly always the same, or on all `of` them, drawn anew.

    None is too slow. What must be among the examples is looked for: Hypothesis may mix them otherwise.
    """
    return settings(
        max_examples=of if all_wanted() else some,
        derandomize=not all_wanted(),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
