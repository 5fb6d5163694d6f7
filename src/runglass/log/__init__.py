"""The log of a run: its events, and the trace, totals and content that follow from them. Knows no I/O."""
