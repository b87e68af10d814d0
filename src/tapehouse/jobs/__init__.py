"""Long work that the owner of a store does for others: `base.py` says what a job is, `runner.py` runs it."""
