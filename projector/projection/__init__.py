"""The projection: records in, rows out. Pure."""
