"""The Lua scripts, one file for each atomic operation."""
