"""The folder of a backup: its files, and the file that makes it a backup.

tables.db        a copy of the database of the tables
log/             an archive of every log: log/tenant=acme/…parquet and manifest.json
backup.json      what the backup holds, and the digests of its files; without it the folder is no backup
tables.next.db   the tables of a backup that is being made

`backup.json` is written last, so a folder stays the backup that it was until the new one is complete. The logs in it may have
grown meanwhile: records after the positions that `backup.json` names do not belong to the backup.
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from streams.archive import Archive
from streams.errors import PenstockError
from streams.runtime import sync, written_whole

FORMAT, FORMAT_VERSION = "penstock-backup", 1
NAME, TABLES, NEXT_TABLES, LOG = "backup.json", "tables.db", "tables.next.db", "log"
SIDE_FILES = ("-journal", "-wal", "-shm")  # SQLite keeps them beside a database that it writes
PARTS = (".part", *(f".part{ending}" for ending in SIDE_FILES))
READ_BYTES = 1024 * 1024


class NoBackup(PenstockError):
    """The folder is no backup, or cannot become one."""


class DamagedBackup(PenstockError):
    """A file of the backup is missing, or is not what it was."""


class BackupRunning(PenstockError):
    """Another backup into the same folder is running."""

    def __init__(self, path: str) -> None:
        super().__init__(f"another backup is being made in {path}")


class KeptLog(msgspec.Struct, frozen=True):
    """A tenant's log in a backup: its last position, its usage.

    The usage is what was counted of the tenant, and what is left of its limits.
    """

    tenant: str
    last: int
    usage: dict[str, str] = {}


class DeletedTenant(msgspec.Struct, frozen=True):
    """A tenant that was deleted: its partition, and the digest of its name."""

    partition: int
    digest: str


class Backup(msgspec.Struct, frozen=True):
    """What a backup holds. `sha256` is the digest of all the other fields."""

    format: str
    version: int
    penstock: str
    made_at: str
    tables_bytes: int
    tables_sha256: str
    tenants: list[KeptLog]
    deleted: list[DeletedTenant]
    sha256: str = ""

    @property
    def records(self) -> int:
        """How many records it holds."""
        return sum(kept.last for kept in self.tenants)


_decode = msgspec.json.Decoder(Backup).decode


class BackupFolder:
    """A folder that is a backup, or is to become one."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.next_tables = str(Path(path, NEXT_TABLES))

    def archive(self) -> Archive:
        """The archive of the logs in it."""
        return Archive(Path(self.path, LOG).absolute().as_uri())

    def tenants(self) -> list[str]:
        """Every tenant that has files in it."""
        with contextlib.suppress(FileNotFoundError):
            names = os.listdir(Path(self.path, LOG))
            return sorted(name.removeprefix("tenant=") for name in names if name.startswith("tenant="))
        return []

    # -- reading -----------------------------------------------------------------------------------------------------

    def read(self) -> Backup:
        """What the backup holds. Raises NoBackup, DamagedBackup."""
        path = Path(self.path, NAME)
        try:
            backup = _decode(path.read_bytes())
        except FileNotFoundError:
            raise NoBackup(f"{self.path} is no backup, or an unfinished backup: it has no {NAME}") from None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise DamagedBackup(f"{path} is damaged: {error}") from None
        if (backup.format, backup.version) != (FORMAT, FORMAT_VERSION):
            actual = f"format {backup.format!r} version {backup.version}"
            raise NoBackup(f"{path} has {actual}; this Penstock reads {FORMAT!r} version {FORMAT_VERSION}")
        if _digest_of(backup) != backup.sha256:
            raise DamagedBackup(f"{path} is damaged: its digest differs")
        return backup

    def tables(self, backup: Backup) -> str:
        """The file of a backup's tables. Raises DamagedBackup."""
        for name in (TABLES, NEXT_TABLES):  # a backup that was killed before its tables got their name
            path = Path(self.path, name)
            if path.exists() and digest_of_file(path) == (backup.tables_bytes, backup.tables_sha256):
                return str(path)
        path = Path(self.path, TABLES)
        raise DamagedBackup(f"{path} is damaged: its digest differs" if path.exists() else f"{path} is missing")

    # -- writing -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the right to make a backup in the folder.

        The folder is created when it does not exist. Raises NoBackup for a folder with other files, BackupRunning.
        """
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise BackupRunning(self.path) from None
            self._tidy()
            yield
        finally:
            os.close(descriptor)

    def _tidy(self) -> None:
        """Finish or remove what a killed backup left."""
        names = os.listdir(self.path)
        known = {NAME, TABLES, NEXT_TABLES, LOG, "lost+found"}
        others = [name for name in sorted(names) if name not in known and not name.endswith(PARTS)]
        if others:
            raise NoBackup(f"{self.path} holds other files, such as {others[0]}; a backup needs a folder of its own")
        for name in names:
            if name.endswith(PARTS):
                os.unlink(Path(self.path, name))
        if NEXT_TABLES in names:
            if NAME in names and self.tables(self.read()) == self.next_tables:
                self._name_tables()
            else:
                os.unlink(self.next_tables)

    def finish(self, backup: Backup) -> None:
        """Make the folder the new backup; until here it is the old one."""
        sealed = msgspec.structs.replace(backup, sha256=_digest_of(backup))
        with written_whole(str(Path(self.path, NAME))) as file:
            file.write(msgspec.json.format(msgspec.json.encode(sealed)))
        self._name_tables()

    def _name_tables(self) -> None:
        os.replace(self.next_tables, Path(self.path, TABLES))
        sync(self.path)


def _digest_of(backup: Backup) -> str:
    return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(backup, sha256=""))).hexdigest()


def digest_of_file(path: str | Path) -> tuple[int, str]:
    """A file's size in bytes and its SHA-256."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(READ_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()
