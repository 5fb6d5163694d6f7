"""Access of commands to flows, runs and data, on a server or in a data folder.

Knows no command and no table.
"""
