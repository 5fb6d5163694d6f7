"""The client as callers see it. Knows nothing of sockets and frames."""
