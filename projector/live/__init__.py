"""The worker that keeps the tables up to date with the log."""
