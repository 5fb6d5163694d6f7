"""Processes that can be killed: started, limited, pooled. Knows nothing of their work."""
