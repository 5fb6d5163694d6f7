"""Where runs, flows and keys are kept: one protocol (`base.py`), one file per kind of store."""
