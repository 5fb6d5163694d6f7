"""JSON schemas of inputs and outputs: checked, measured, filled in. Knows no flows."""
