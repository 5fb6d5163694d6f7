"""A process that executes runs beside servers on the same store. Knows no HTTP and no SQL."""
