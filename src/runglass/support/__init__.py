"""What every room may use: clocks, caches, JSON, texts, logs, signals. Knows no flows and no runs."""
