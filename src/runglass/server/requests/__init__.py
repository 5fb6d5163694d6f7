"""What a request says: its body, parameters and headers, read and checked. Starts nothing."""
