"""Runs of other programs: receives spans and logs, merges them and writes runs.

Knows no HTTP and no SQL.
"""
