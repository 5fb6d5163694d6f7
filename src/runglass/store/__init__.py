"""Where runs, flows and keys are kept: one protocol (`base.py`), one folder per kind of store.

Knows nothing of the engine and of HTTP.
"""
