"""What callers send, checked within limits of time and memory. Knows no runs."""
