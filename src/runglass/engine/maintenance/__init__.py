"""What goes on beside the runs: runs and content that are due to go. Starts no run."""
