"""From a flow file to a flow: every mistake in it with its place, and warnings."""

from collections.abc import Container
from itertools import chain
from typing import NamedTuple

import msgspec

from runglass.errors import FlowFileError, Problem
from runglass.flows.diagnostics import path_text
from runglass.flows.flow import Flow
from runglass.flows.references import unmet_references
from runglass.flows.validation import SCHEMA_LIMIT_BYTES, flow_rules

MAX_PROBLEMS = 1_000
FLOW_LIMIT = 1 << 20
"""Characters of a flow file, and bytes of the overrides of a call: they make a flow of their own."""


class CheckedFlow(NamedTuple):
    """A flow, and warnings for its author."""

    flow: Flow
    warnings: list[Problem]


def parse_flow(text: str | bytes, *, file: str = "<flow>") -> Flow:
    """The flow in a YAML or JSON text. Raises FlowFileError with every mistake and its place.

    From the thousandth mistake on they are no longer listed. `file` is only a name for messages.
    """
    return check_flow(text, file=file).flow


def check_flow(
    text: str | bytes,
    *,
    file: str = "<flow>",
    own_providers: Container[str] = (),
    limit_characters: int = FLOW_LIMIT,
    schema_limit_bytes: int = SCHEMA_LIMIT_BYTES,
) -> CheckedFlow:
    """The flow and the warnings about it, at most a thousand; otherwise like `parse_flow`.

    `own_providers` are names of OpenAI-compatible servers: models of theirs need no package.
    """
    # Imported here, so that a server to which no flow is pushed does not hold a reader of YAML.
    from runglass.flows.file import read_document

    document = read_document(text, file=file, limit_characters=limit_characters)
    problems = document.problems[:MAX_PROBLEMS]
    warnings: list[Problem] = []
    unreadable = {problem.path for problem in problems}
    for finding in chain(
        flow_rules(schema_limit_bytes).flow(document.value, own_providers=own_providers),
        unmet_references(document.value),
    ):
        if len(problems) >= MAX_PROBLEMS:
            problems.append(Problem(f"there may be more; only {MAX_PROBLEMS:,} problems are listed"))
            break
        if path_text(finding.path) in unreadable:
            continue
        if not finding.is_warning:
            problems.append(document.problem(finding))
        elif len(warnings) < MAX_PROBLEMS:
            warnings.append(document.problem(finding))
    warnings.sort(key=_appearance)
    if problems:
        raise FlowFileError(sorted(problems, key=_appearance), file=file, warnings=warnings)
    # Not strict, so that 3.0 is an integer, as it is to JSON Schema; nothing else is left to coerce.
    return CheckedFlow(msgspec.convert(document.value, Flow, strict=False), warnings)


def _appearance(problem: Problem) -> tuple[bool, int, int]:
    return problem.line is None, problem.line or 0, problem.column or 0
