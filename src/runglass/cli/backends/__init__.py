"""Where commands find flows, runs and data: on a server, or in a data folder.

Knows no command and no table.
"""
