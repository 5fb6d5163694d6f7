"""How processes wake each other: the bus of one process (`base.py`), that of several, and what carries texts.

Knows no events and no stores.
"""
