"""Code, templates and checks in processes that can be killed. Knows no runs."""
