"""Work beside the runs: removes runs and content that are due to go. Starts no run."""
