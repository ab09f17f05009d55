"""Every setting: its name, default, unit and range.

They are read once, when a process starts, from the environment and then from `.env`.
"""

import os
import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from redis.asyncio.connection import parse_url

from streams.errors import PenstockError
from streams.limits import Limits
from streams.runtime import env_file

TOKEN_CHARACTERS = 16
SOCKET_PATH_LIMIT_BYTES = 100  # a unix socket's path has 108 bytes on Linux, 104 on macOS


_is_origin = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s*]+").fullmatch
_is_archive = re.compile(r"(file:///|s3://|gs://)\S+").fullmatch
_address = re.compile(r"//\S+").sub
_password_parameter = re.compile(r"(?<=password=)[^\s&'\"]+").sub


class SettingError(PenstockError):
    """A setting cannot be used."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"Setting {name} {reason}")


Port = Annotated[int, Meta(ge=1, le=65535)]
Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Seconds = Annotated[float, Meta(gt=0, le=31_536_000)]


class Settings(msgspec.Struct, frozen=True, rename="upper"):
    """All settings. A field's upper-case name is the variable.

    docs/reference/settings.md says what each setting is for.
    """

    host: str = "127.0.0.1"
    port: Port = 8000
    data_dir: Annotated[str, Meta(min_length=1)] = "data"
    redis_url: str = ""
    database_url: str = ""
    auth: Literal["open", "keys"] = "open"
    allow_open_access: bool = False
    new_tenants_per_second: Positive = 50
    events_per_second: Count = 0
    bytes_per_second: Count = 0
    events_per_day: Count = 0
    metrics_token: str = ""
    jwt_secret: str = ""
    jwt_public_key_file: str = ""
    jwt_jwks_url: str = ""
    jwt_tenant_claim: Annotated[str, Meta(min_length=1)] = "tenant"
    jwt_role_claim: Annotated[str, Meta(min_length=1)] = "role"
    jwt_audience: str = ""
    jwt_issuer: str = ""
    jwt_leeway_seconds: Annotated[float, Meta(ge=0, le=300)] = 10.0
    cors_origins: str = ""
    trusted_proxies: str = ""
    durability: Literal["always", "everysec", "none"] = "always"
    embedded_server_memory_bytes: Annotated[int, Meta(ge=0)] = 0
    min_free_disk_bytes: Annotated[int, Meta(ge=0)] = 256 * 1024 * 1024
    dedup_window_seconds: Annotated[float, Meta(ge=1, le=31_536_000)] = 86_400.0
    max_event_bytes: Annotated[int, Meta(ge=256, le=1024 * 1024)] = 64 * 1024
    max_request_events: Annotated[int, Meta(ge=1, le=100_000)] = 1_000
    max_request_bytes: Annotated[int, Meta(ge=1024, le=256 * 1024 * 1024)] = 5 * 1024 * 1024
    archive_url: str = ""
    hot_seconds: Annotated[float, Meta(ge=0)] = 86_400.0
    hot_records: Positive = 1_000_000
    append_timeout_seconds: Seconds = 2.0
    request_timeout_seconds: Seconds = 30.0
    read_wait_timeout_seconds: Annotated[float, Meta(ge=0, le=60)] = 5.0
    max_connections_per_address: Positive = 1_024
    projector_batch_records: Annotated[int, Meta(ge=1, le=100_000)] = 5_000
    projector_batch_bytes: Annotated[int, Meta(ge=65_536)] = 16 * 1024 * 1024
    lease_seconds: Annotated[float, Meta(ge=0.2, le=60)] = 5.0
    session_gap_seconds: Annotated[float, Meta(ge=1, le=604_800)] = 1_800.0
    sqlite_cache_mib: Annotated[int, Meta(ge=1)] = 256
    log_format: Literal["auto", "json", "text"] = "auto"
    access_log: bool = False

    @property
    def origins(self) -> list[str]:
        """The origins of CORS_ORIGINS."""
        return _items(self.cors_origins)

    @property
    def proxies(self) -> list[IPv4Network | IPv6Network]:
        """The networks of TRUSTED_PROXIES."""
        return [ip_network(item) for item in _items(self.trusted_proxies)]

    @property
    def limits(self) -> Limits:
        """What a tenant may send that has no limits of its own."""
        return Limits(self.events_per_second, self.bytes_per_second, self.events_per_day)

    @property
    def embedded(self) -> bool:
        """Whether Penstock runs the server itself: without REDIS_URL."""
        return not self.redis_url

    @property
    def socket_path(self) -> str:
        """The embedded server's unix socket."""
        return os.path.join(self.data_dir, "server.sock")

    @property
    def log_url(self) -> str:
        """Where the log is: REDIS_URL, or the embedded server's socket."""
        return self.redis_url or f"unix://{self.socket_path}"

    @property
    def archive(self) -> str:
        """Where the archive is; empty for ARCHIVE_URL=none.

        ARCHIVE_URL, or a directory in DATA_DIR.
        """
        if self.archive_url == "none":
            return ""
        return self.archive_url or Path(self.data_dir, "archive").absolute().as_uri()

    @property
    def tables_url(self) -> str:
        """Where the tables are: DATABASE_URL, or a SQLite file in DATA_DIR."""
        return self.database_url or f"sqlite:///{os.path.join(self.data_dir, 'penstock.db')}"


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from the environment, then `.env`, then the defaults.

    Raises SettingError, which names the setting. With `environment`, only that is read.
    """
    if environment is None:
        environment = env_file.environment()
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        text = environment.get(field.encode_name, "")
        if text != "":
            values[field.name] = _parse(field.encode_name, text, field.type)
    settings = Settings(**values)
    _check(settings)
    return settings


def log_format() -> str:
    """LOG_FORMAT as it is given, or empty.

    Logging needs it before the settings are loaded, which may fail.
    """
    return env_file.environment().get("LOG_FORMAT", "")


def without_passwords(text: str) -> str:
    """The text without the user and password of each URL in it."""
    return _password_parameter("***", _address(lambda match: _without_user(match[0]), text))


def _without_user(address: str) -> str:
    before, _, place = address.rpartition("@")  # a password may hold @ and /, although it should not
    return f"//***@{place}" if before else address


def _parse(name: str, text: str, kind: Any) -> Any:
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        reason = str(error).replace("`", "").removeprefix("Expected ")
        raise SettingError(name, f"must be: {reason}. It is {text!r}.") from None


def _check(settings: Settings) -> None:
    if settings.redis_url:
        shown = without_passwords(settings.redis_url)
        try:
            parsed = parse_url(settings.redis_url)
        except ValueError as error:
            why = f" ({error})" if shown == settings.redis_url else ""  # which may repeat a part of a password
            raise SettingError("REDIS_URL", f"must be a redis://, rediss:// or unix:// address{why}. It is {shown!r}.") from None
        if settings.redis_url.startswith("unix:") and not parsed.get("path"):
            raise SettingError("REDIS_URL", f"must name a socket: unix:///path. It is {shown!r}.")
    for origin in settings.origins:
        if origin != "*" and not _is_origin(origin):
            raise SettingError("CORS_ORIGINS", f"must be * or origins like https://shop.example, with commas. One is {origin!r}.")
    try:
        _ = settings.proxies
    except ValueError as error:
        raise SettingError("TRUSTED_PROXIES", f"must be addresses or networks, with commas: {error}.") from None
    sources = [name for name in ("jwt_secret", "jwt_public_key_file", "jwt_jwks_url") if getattr(settings, name)]
    if len(sources) > 1:
        raise SettingError(
            sources[1].upper(), f"cannot be set together with {sources[0].upper()}: only one of them can check tokens."
        )
    if sources and settings.auth == "open":
        raise SettingError(sources[0].upper(), "is set and AUTH is open, where no token is checked. Set AUTH=keys.")
    if settings.metrics_token and settings.auth == "open":
        raise SettingError("METRICS_TOKEN", "is set and AUTH is open, where every client may read /metrics. Set AUTH=keys.")
    if settings.metrics_token and len(settings.metrics_token) < TOKEN_CHARACTERS:
        raise SettingError("METRICS_TOKEN", f"must have {TOKEN_CHARACTERS} characters or more.")
    if settings.archive_url not in ("", "none") and not _is_archive(settings.archive_url):
        shown = without_passwords(settings.archive_url)
        raise SettingError("ARCHIVE_URL", f"must begin with file:///, s3:// or gs://, or be none. It is {shown!r}.")
    path = settings.tables_url.removeprefix("sqlite:///")
    if path in ("", ":memory:", settings.tables_url):
        raise SettingError("DATABASE_URL", f"must be sqlite:/// and a file's path. It is {settings.tables_url!r}.")
    if settings.embedded and len(os.fsencode(settings.socket_path)) > SOCKET_PATH_LIMIT_BYTES:
        length = len(os.fsencode(settings.socket_path))
        raise SettingError(
            "DATA_DIR",
            f"is too long for a unix socket: {settings.socket_path!r} has {length} bytes, "
            f"the limit is {SOCKET_PATH_LIMIT_BYTES}. A relative path is shorter.",
        )
