"""Code that the handlers of several endpoints share. Knows no paths and methods."""
