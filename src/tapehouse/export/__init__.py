"""Rows out of a store, as files that anybody can open and `tapehouse load` takes back."""
