"""What emitters call things, read into our words. Knows no runs and no store."""

from runglass.recording.dialects.logs import interpret_log
from runglass.recording.dialects.prices import load_prices
from runglass.recording.dialects.spans import interpret

__all__ = ["interpret", "interpret_log", "load_prices"]
