"""Health: whether the process runs, and whether it is ready for events.

Readiness names each problem that it finds.
"""

import os
import shutil
import time

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from api.schemas import Failure, Readiness
from projector import Store, StoreUnavailable
from streams import Log
from streams.errors import LogUnavailable
from streams.runtime import Settings

SERVER_CHECK_SECONDS = 60.0


async def healthz(request: Request) -> Response:
    """GET /healthz: answer that the process runs."""
    return Response(b'{"status":"ok"}', media_type="application/json")


async def readyz(request: Request) -> Response:
    """GET /readyz: check the server, the disk and the tables."""
    state = request.app.state
    failures = await state.server_check.failures() + disk_failures(state.settings) + await _tables_failures(state.store)
    body = Readiness("ready" if not failures else "not ready", failures)
    return Response(msgspec.json.encode(body), 503 if failures else 200, media_type="application/json")


async def _tables_failures(store: Store) -> list[Failure]:
    try:
        await run_in_threadpool(store.check_readable)
    except StoreUnavailable as error:
        return [Failure("tables-unreachable", str(error))]
    return []


def disk_failures(settings: Settings) -> list[Failure]:
    """A failure if DATA_DIR has too little free disk."""
    if not os.path.isdir(settings.data_dir):
        return []
    free_bytes = shutil.disk_usage(settings.data_dir).free
    if free_bytes >= settings.min_free_disk_bytes:
        return []
    detail = f"{settings.data_dir} has {free_bytes} bytes free; MIN_FREE_DISK_BYTES is {settings.min_free_disk_bytes}"
    return [Failure("disk-low", detail)]


class ServerCheck:
    """Checks whether the log's server keeps what it accepts.

    Its state is read at each call, its configuration once a minute.
    """

    def __init__(self, log: Log, settings: Settings) -> None:
        self._log = log
        self._durability = settings.durability
        self._request_bytes = settings.max_request_bytes
        self._checked = float("-inf")
        self._configuration: list[Failure] = []

    async def failures(self) -> list[Failure]:
        """Check the server. An empty list means that it is ready."""
        try:
            information = parse_info(await self._log.connection.call("INFO"))
            if time.monotonic() - self._checked > SERVER_CHECK_SECONDS or self._configuration:
                self._configuration = unsafe(await self._settings(information), self._durability)
                self._checked = time.monotonic()
        except LogUnavailable as error:
            return [Failure("server-unreachable", str(error))]
        return unwritable(information, self._request_bytes) + self._configuration

    async def _settings(self, information: dict[str, str]) -> dict[str, str]:
        """The server's settings; where CONFIG is forbidden, those that INFO shows."""
        settings = {"maxmemory-policy": information.get("maxmemory_policy", "")}
        settings["appendonly"] = "yes" if information.get("aof_enabled") == "1" else "no"
        for name in ("maxmemory-policy", "appendonly", "appendfsync"):
            [reply] = await self._log.connection.pipeline([("CONFIG", "GET", name)])
            if isinstance(reply, list) and len(reply) == 2:
                settings[name] = reply[1].decode()
        return settings


def parse_info(text: bytes) -> dict[str, str]:
    """The lines of INFO as a mapping."""
    lines = (line.partition(":") for line in text.decode().splitlines())
    return {key: value for key, colon, value in lines if colon}


def unwritable(information: dict[str, str], request_bytes: int) -> list[Failure]:
    """Why the server would refuse to write a request of this size."""
    failures = []
    if information.get("role") == "slave":
        failures.append(Failure("server-read-only", "the server is a replica; set REDIS_URL to its primary"))
    if information.get("aof_last_write_status", "ok") != "ok":
        failures.append(Failure("server-not-writing", "the server could not write its append-only file"))
    limit, used = int(information.get("maxmemory", 0)), int(information.get("used_memory", 0))
    if limit and used + request_bytes > limit:
        detail = f"the server uses {used} bytes of maxmemory {limit}; a request may need {request_bytes}"
        failures.append(Failure("server-memory-full", detail))
    return failures


def unsafe(settings: dict[str, str], durability: str) -> list[Failure]:
    """Settings of the server that may lose accepted events.

    DURABILITY can permit some of them.
    """
    failures = []
    policy = settings["maxmemory-policy"]
    if policy != "noeviction":
        failures.append(Failure("server-evicts", f"maxmemory-policy is {policy!r}; only noeviction keeps all events"))
    if durability != "none" and settings["appendonly"] != "yes":
        failures.append(Failure("server-not-durable", "appendonly is 'no'; set it to 'yes', or set DURABILITY=none to permit it"))
    fsync = settings.get("appendfsync", "always")
    if (durability == "always" and fsync != "always") or (durability == "everysec" and fsync == "no"):
        detail = f"appendfsync is {fsync!r}, but DURABILITY is {durability!r}: a power failure may lose accepted events"
        failures.append(Failure("server-not-durable", detail))
    return failures
