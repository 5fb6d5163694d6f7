"""Which project may go on, and with how much: turns, pace, memory, limits. Knows no steps."""
