"""What is printed: tables, trees, lines, formats. Asks no server."""
