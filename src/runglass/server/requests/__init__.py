"""What a request says: its body, parameters and headers, read and checked.

Knows no store and starts nothing.
"""
