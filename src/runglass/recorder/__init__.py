"""Records runs of the user's own Python and sends them to a server. Knows no flows and no stores."""
