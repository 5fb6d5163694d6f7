"""Who may go on, and with how much: rates, shares and turns of projects, pace. Knows no flows and no I/O."""
