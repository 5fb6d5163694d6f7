"""Processes that can be killed: started, limited, pooled. Knows nothing of what they work on."""
