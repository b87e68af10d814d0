"""From the log to the store: what is stored is exactly what was logged, once."""
