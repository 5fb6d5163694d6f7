"""Runs flows: walks the tree of steps and records what happens."""
