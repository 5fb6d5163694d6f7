"""Runs of other programs, taken in: spans and logs as they are sent, merged, and written as runs.

Knows no HTTP and no SQL.
"""
