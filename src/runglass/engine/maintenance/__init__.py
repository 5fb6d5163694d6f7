"""What goes on beside the runs: runs and content that are due to go. Knows no steps and starts no run."""
