"""What a store does, in five protocols. Knows no SQL and no kind of store."""
