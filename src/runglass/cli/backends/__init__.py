"""Access of commands to flows and runs: by the client, of a server or of one in this process.

Knows no command and no table.
"""
