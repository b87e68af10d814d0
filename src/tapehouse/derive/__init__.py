"""From trades to bars, as they come: what the log has becomes more of the log."""
