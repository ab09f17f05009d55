"""The commands of `penstock projector`."""

from projector.commands.main import main as projector_commands

__all__ = ["projector_commands"]
