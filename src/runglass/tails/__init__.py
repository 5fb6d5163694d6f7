"""Readers of logs and of lists of runs that wait for more. Knows nothing of who follows."""
