"""A log as a file: export, import, and import of events from elsewhere."""
