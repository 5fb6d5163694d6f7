"""The content that a trace keeps: snapshots, cut and without secrets. Knows nothing of runs."""
