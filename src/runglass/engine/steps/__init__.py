"""The tree of steps: walked, and each leaf performed, recorded, tried again. Knows no queue and no lease."""
