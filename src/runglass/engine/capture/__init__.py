"""What a trace keeps of content: modes, and snapshots, cut and without secrets. Knows no steps and no log."""
