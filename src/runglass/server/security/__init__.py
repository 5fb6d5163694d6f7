"""Keys, what a key may see, rate limits and revocation. Knows no endpoint."""
