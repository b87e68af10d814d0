"""The archive of the embedded store: spans of time in immutable Parquet files."""
