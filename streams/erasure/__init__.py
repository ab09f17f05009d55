"""Erasing a data subject from a log, and deleting a tenant."""
