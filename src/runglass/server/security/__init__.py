"""Who asks, what they may see, how often, and for how long. Knows no endpoint."""
