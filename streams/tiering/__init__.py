"""Moving cold records to the archive, and recovering a server from it."""

from streams.tiering.archiver import Archived, Archiver
from streams.tiering.recover import HistoryDiffers, Recovered, recover
from streams.tiering.verify import problems

__all__ = ["Archived", "Archiver", "HistoryDiffers", "Recovered", "problems", "recover"]
