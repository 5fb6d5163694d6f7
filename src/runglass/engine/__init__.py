"""Runs flows: executes the tree of steps and records what happens.

Knows no HTTP, and of stores and buses their protocols alone.
"""
