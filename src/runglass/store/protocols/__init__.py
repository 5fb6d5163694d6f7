"""What a store does, in six protocols. Knows no SQL and no kind of store."""
