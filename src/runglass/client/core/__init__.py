"""Requests, answers and cursors as plain data, without I/O."""
