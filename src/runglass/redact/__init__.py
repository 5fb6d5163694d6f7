"""Finds secrets in values and texts and marks them. Knows nothing else of ours."""

from runglass.redact.known import strike_known
from runglass.redact.redactor import MARK, Redactor, Rules

__all__ = ["MARK", "Redactor", "Rules", "strike_known"]
