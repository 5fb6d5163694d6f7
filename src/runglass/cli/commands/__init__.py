"""One file for each group of commands: its options, what it asks for, what it shows.

Knows no HTTP and no SQL.
"""
