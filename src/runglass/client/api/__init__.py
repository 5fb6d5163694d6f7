"""The flows of a project, managed. Knows nothing of sockets and frames."""
