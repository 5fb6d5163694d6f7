"""Calls that run a flow: read, admitted, begun once, answered or streamed. Knows no paths and no methods."""
