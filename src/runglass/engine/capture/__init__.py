"""What a trace keeps of content: snapshots, cut and without secrets. Knows nothing of runs."""
