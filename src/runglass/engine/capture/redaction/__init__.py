"""Finds secrets in values and texts and marks them. Knows no capture modes and no snapshots."""

from runglass.engine.capture.redaction.known import strike_known
from runglass.engine.capture.redaction.redactor import MARK, Redactor, Rules

__all__ = ["MARK", "Redactor", "Rules", "strike_known"]
