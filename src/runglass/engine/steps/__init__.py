"""One attempt of one leaf step: performed, recorded, tried again. Knows nothing of which step comes next."""
