"""A run as rows: one for each step, iteration and attempt, in columns. Knows no events and no I/O."""
