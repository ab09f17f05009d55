"""The ingest endpoints: the native one and those of foreign formats."""
