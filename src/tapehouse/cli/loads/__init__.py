"""`tapehouse load`, and what can be asked of what was loaded."""
