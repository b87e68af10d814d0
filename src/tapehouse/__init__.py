"""A market-data server that you run yourself."""
