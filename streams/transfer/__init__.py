"""A log as a file: export, import, and import of foreign histories."""

from streams.transfer.csv_rows import BadColumns, csv_lines
from streams.transfer.file import OtherFile, resumed
from streams.transfer.format import FORMAT, FORMAT_VERSION, LINE_LIMIT_BYTES, BadLine, Header, export, lines_of
from streams.transfer.import_events import EventImport, Refusal, ndjson_lines
from streams.transfer.import_log import LogDiffers, LogEndsBefore, LogImport

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "LINE_LIMIT_BYTES",
    "BadColumns",
    "BadLine",
    "EventImport",
    "Header",
    "LogDiffers",
    "LogEndsBefore",
    "LogImport",
    "OtherFile",
    "Refusal",
    "csv_lines",
    "export",
    "lines_of",
    "ndjson_lines",
    "resumed",
]
