"""Live records on their way in: checked, told apart from repeats, and handed to the log."""
