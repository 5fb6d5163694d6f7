"""Checks of requests, within limits of time and memory. Knows no runs."""
