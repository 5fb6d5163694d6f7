"""The store of a single machine: one SQLite file. Knows nothing of events, flows and servers."""
