"""The store of a single machine: one SQLite file. Knows nothing of the engine and of HTTP."""
