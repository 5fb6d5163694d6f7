"""Connections, streams and the shapes of answers. Knows no endpoint and no flow."""
