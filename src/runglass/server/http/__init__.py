"""Connections, streams and the shapes of answers. Knows nothing of flows and runs."""
