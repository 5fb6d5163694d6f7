"""Code, expressions and templates of steps, run in other processes. Knows no runs."""
