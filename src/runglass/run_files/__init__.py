"""Runs as files: written in four formats, and read back from two. Knows no store and no HTTP."""
