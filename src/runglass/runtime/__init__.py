"""A store, a bus and an engine as one thing for servers, workers and commands. Knows no endpoints."""
