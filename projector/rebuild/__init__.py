"""Rebuild, rollback, verify and point-in-time copies: the log replayed."""
