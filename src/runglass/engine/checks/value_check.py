"""Whether a value is as a JSON Schema wants it, told in sentences."""

from typing import Any

import jsonschema_rs

from runglass.errors import StepFailure
from runglass.flows.schemas.schema import mistakes


def schema_problems(value: Any, schema: dict[str, Any], *, quick_bytes: int | None = None) -> list[str]:
    """The mistakes in `value`, at most five located sentences; empty where `schema` accepts it.

    Raises StepFailure where `schema` itself is no JSON Schema. Never fetches a remote reference. With
    `quick_bytes`, the size of the value as JSON, raises Unproved where it may take longer than milliseconds.
    """
    try:
        return mistakes(value, schema, quick_bytes=quick_bytes)
    except (ValueError, jsonschema_rs.ReferencingError) as problem:
        raise StepFailure(
            "INVALID_INPUT", f"not a usable JSON Schema: {str(problem)[:500]}", may_retry=False
        ) from problem
