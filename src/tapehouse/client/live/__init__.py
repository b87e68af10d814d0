"""Live records: a stream that goes on where it was when its connection is lost."""
