"""A consistent copy of tables and logs, and its restore."""
