"""What client and server say to each other, as plain data. Knows no HTTP library and no handler."""
