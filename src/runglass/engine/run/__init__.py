"""Runs from their start to their end: queued, claimed, executed, given up. Knows no kind of step."""
