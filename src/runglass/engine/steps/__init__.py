"""One attempt of one leaf step: performed, recorded, tried again. Knows nothing of the tree of steps."""
