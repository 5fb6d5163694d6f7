"""The durable state of a run: its log, its checkpoints, its specification.

Knows no models and no sandbox.
"""
