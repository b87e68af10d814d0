"""What the log and the streams are written in."""
