"""The store of many machines: one PostgreSQL. Knows nothing of the engine and of HTTP."""
