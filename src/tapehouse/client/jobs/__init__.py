"""Loads through a server, and what is known of what was loaded: batches, certificates, quality."""
