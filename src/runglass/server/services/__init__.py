"""What the handlers of several endpoints do. Knows no paths and methods."""
