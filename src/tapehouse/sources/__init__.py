"""Where live data comes from: feeds of this process, simulated or replayed."""
