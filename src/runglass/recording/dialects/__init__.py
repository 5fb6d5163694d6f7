"""What emitters call things, read into our words. Knows no runs and no store."""

from runglass.recording.dialects.spans import interpret, interpret_log
from runglass.recording.dialects.usage import load_prices

__all__ = ["interpret", "interpret_log", "load_prices"]
