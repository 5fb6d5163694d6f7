"""Output on a terminal: tables, trees, lines, formats. Knows no server, no client and no store."""
