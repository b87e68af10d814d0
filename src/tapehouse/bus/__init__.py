"""The log: the durable stream that all live data goes through, and the systems that hold it."""
