"""What a process does and how it is, for those who watch it: `/metrics`, `/health` and `/ready`.

Knows no callers and no content of runs.
"""
