"""The tree of steps: executes it, and records and retries each leaf. Knows no queue and no lease."""
