"""`runglass demo`."""
