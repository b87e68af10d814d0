"""From the log to clients: history, the log and what comes live, on one subscription, at each client's own pace."""
