"""How processes wake each other: one protocol (`base.py`), one file per kind of bus.

Knows no events and no stores.
"""
