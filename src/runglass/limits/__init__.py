"""Which work is next, and its share: rates, shares and turns of projects, pace. Knows no flows and no I/O."""
