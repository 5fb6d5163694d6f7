"""A flow: its tree, its file, and every rule that it can break. Knows no runs and no I/O."""
