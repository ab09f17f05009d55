"""The commands of `penstock streams`.

The commands of other packages open the log as these do.
"""

from streams.commands.cli import open_log
from streams.commands.main import main as streams_commands

__all__ = ["open_log", "streams_commands"]
