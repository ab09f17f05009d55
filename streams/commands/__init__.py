"""The commands of `penstock streams`. Commands of other packages open the log as these do."""

from streams.commands.cli import open_log

__all__ = ["open_log"]
