"""Who may go on, and with how much: turns between projects, pace, memory, limits.

Knows no flows and no events.
"""
