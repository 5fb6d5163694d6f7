"""What differs between two runs, attempt by attempt. Knows no store, no server and no terminal: no I/O."""
