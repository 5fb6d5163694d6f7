"""Requests, answers and cursors as plain data and small state machines. Knows no I/O and no HTTP library."""
