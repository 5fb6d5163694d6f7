"""`runglass demo`: a flow and a server of its own, watched live. Knows no data folder but the demo's."""
