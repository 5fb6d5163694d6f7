"""Runs flows: executes the tree of steps and records what happens.

Knows no HTTP, and no kind of store or bus.
"""
