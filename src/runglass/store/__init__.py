"""Where runs, flows and keys are kept: what a store does (`base.py`), and one folder per kind of store.

Knows nothing of the engine and of HTTP.
"""
