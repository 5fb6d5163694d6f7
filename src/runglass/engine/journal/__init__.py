"""What a run writes down and is taken up from: its log, its checkpoints, its specification.

Knows no models and no sandbox.
"""
