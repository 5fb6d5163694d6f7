"""Background work: deletes runs and content that are due. Knows no steps and starts no run."""
