"""Keys, the sessions of browsers, and what a key may see. Knows no endpoint."""
