"""What a request says: its body, parameters and headers, read and checked.

Knows no handler and starts no run.
"""
