"""Finds secrets in values and texts and marks them; knows no capture modes and no snapshots."""

from runglass.engine.redaction.known import strike_known
from runglass.engine.redaction.redactor import MARK, Redactor, Rules

__all__ = ["MARK", "Redactor", "Rules", "strike_known"]
