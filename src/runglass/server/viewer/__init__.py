"""Pages in which people look at runs: modules, styles and libraries as they are sent. Knows no endpoint."""
