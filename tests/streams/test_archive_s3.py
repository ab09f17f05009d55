"""The archive works in a bucket over the real S3 protocol.

A failed upload leaves the archive as it was and is retried.
"""

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import pytest
from moto.server import ThreadedMotoServer

from projector.live.worker import Worker
from projector.rebuild.rebuild import rebuild
from projector.rebuild.verify import verify
from projector.store.sqlite import SqliteStore
from streams import Connection, Log, keys_of
from streams.archive import Archive
from streams.archive.files import Files
from streams.erasure import delete_log
from streams.erasure.erase import SubjectErasure
from streams.erasure.subject import Subject
from streams.errors import ArchiveUnavailable, DamagedArchive
from streams.tiering import problems
from tests.support.archives import archiver
from tests.support.events import event, events
from tests.support.records import records_of
from tests.support.servers import Server

pytestmark = pytest.mark.anyio

BUCKET = "penstock"


@pytest.fixture(scope="module")
def s3() -> Iterator[int]:
    """The port of an S3 server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()[1]
    finally:
        server.stop()


@pytest.fixture
def client(s3: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of boto3 with an empty bucket."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_RETRY_MODE", "standard")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{s3}", region_name="us-east-1")
    client.create_bucket(Bucket=BUCKET)
    for entry in client.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        client.delete_object(Bucket=BUCKET, Key=entry["Key"])
    return client


def url_of(port: int) -> str:
    return f"s3://{BUCKET}/logs?scheme=http&region=us-east-1&endpoint_override={quote(f'127.0.0.1:{port}')}"


class FaultyProxy:
    """A TCP proxy before S3 that cuts a PUT of a path with `harmed`.

    `how` is "upload" to cut within the body, "answer" to lose the answer.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.harmed: bytes | None = None
        self.how = "upload"
        self.harms = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        far = socket.create_connection(("127.0.0.1", self._port))
        cut = threading.Event()

        def answers() -> None:
            try:
                while data := far.recv(65_536):
                    if cut.is_set():
                        break
                    near.sendall(data)
            except OSError:
                pass
            near.close()

        threading.Thread(target=answers, daemon=True).start()
        try:
            while data := near.recv(65_536):
                if self.harmed is not None and data.startswith(b"PUT ") and self.harmed in data.partition(b"\r\n")[0]:
                    self.harms += 1
                    if self.how == "upload":
                        far.sendall(data[: len(data) // 2])
                        far.close()
                        near.close()
                        return
                    self.harmed = None  # one answer is lost; the retry is answered
                    cut.set()
                far.sendall(data)
        except OSError:
            pass
        far.close()

    def close(self) -> None:
        self._socket.close()


async def test_a_log_is_archived_in_a_bucket_as_in_a_directory(
    server: Server, s3: int, client: Any, store: SqliteStore, tmp_path: Path
) -> None:
    async with Log(Connection(server.url), archive_url=url_of(s3)) as log:
        worker = Worker(log, store, lease_owner="test:1", lease_seconds=0.5)
        for tenant in ("acme", "globex"):
            await log.append(tenant, events(300))
        await worker.run_to_end()
        before = await records_of(log)
        archived = await archiver(log).run_once()
        await log.append("acme", [event(session_id="new")])
        await worker.run_to_end()
        await archiver(log).run_once()

        assert (archived.records, archived.stuck) == (598, {})
        assert (await records_of(log))[:300] == before
        assert server.client.xlen(keys_of("acme").log) == 1
        await rebuild(log, store)
        assert [difference async for difference in verify(log, store)] == []
        assert [problem async for problem in problems(log)] == []
        keys = [entry["Key"] for entry in client.list_objects_v2(Bucket=BUCKET)["Contents"]]
        assert "logs/tenant=acme/manifest.json" in keys
        assert await delete_log(log.connection, "acme", log.archive_url)
        assert Archive(log.archive_url).tenants() == ["globex"]


@pytest.mark.parametrize(
    ("how", "harmed"), [("upload", b".parquet"), ("upload", b"/manifest.json"), ("answer", b"/manifest.json")]
)
async def test_a_failed_upload_or_a_lost_answer_is_retried(
    server: Server, s3: int, client: Any, store: SqliteStore, harmed: bytes, how: str
) -> None:
    faulty_proxy = FaultyProxy(s3)
    try:
        async with Log(Connection(server.url), archive_url=url_of(faulty_proxy.port)) as log:
            worker = Worker(log, store, lease_owner="test:1", lease_seconds=0.5)
            await log.append("acme", events(200))
            await worker.run_to_end()
            before = await records_of(log)
            faulty_proxy.harmed, faulty_proxy.how = harmed, how
            if how == "upload":
                with pytest.raises((ArchiveUnavailable, OSError)):
                    await asyncio.wait_for(archiver(log).run_once(), 60)
                assert server.client.xlen(keys_of("acme").log) == 200
                faulty_proxy.harmed = None
            else:
                assert (await archiver(log).run_once()).stuck == {}
            assert faulty_proxy.harms > 0

            await archiver(log).run_once()

            assert await records_of(log) == before
            assert server.client.xlen(keys_of("acme").log) == 1
            assert [problem async for problem in problems(log)] == []
    finally:
        faulty_proxy.close()


async def test_a_half_written_object_is_detected_before_records_leave_the_server(
    server: Server, s3: int, client: Any, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Files.put
    monkeypatch.setattr(Files, "put", lambda self, path, content: put(self, path, content[: len(content) // 2]))
    async with Log(Connection(server.url), archive_url=url_of(s3)) as log:
        worker = Worker(log, store, lease_owner="test:1", lease_seconds=0.5)
        await log.append("acme", events(200))
        await worker.run_to_end()

        archived = await archiver(log).run_once()

        assert "is damaged" in archived.stuck["acme"]
        assert server.client.xlen(keys_of("acme").log) == 200
        assert Archive(log.archive_url).manifest("acme").through == 0
        monkeypatch.undo()


async def test_a_bucket_that_cannot_be_reached_raises_an_archive_error(server: Server, store: SqliteStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    archive = Archive(url_of(port))

    with pytest.raises((ArchiveUnavailable, DamagedArchive)):
        await asyncio.to_thread(archive.manifest, "acme")


async def test_a_data_subject_is_erased_from_a_bucket(server: Server, store: SqliteStore, client: Any, s3: int) -> None:
    async with Log(Connection(server.url), archive_url=url_of(s3)) as log:
        await log.append("acme", [*events(30), event(session_id="ann", note="c4n4ry"), event(session_id="last")])
        await Worker(log, store, lease_owner="test:1", lease_seconds=0.5).run_to_end()
        await archiver(log).run_once()
        [before] = Archive(url_of(s3)).manifest("acme").segments
        erasure = SubjectErasure(log, "acme", Subject("session_id", "ann"))

        async with erasure.lease():
            await erasure.find_records(lambda done, total: None)
            await erasure.append_control_records()
            rewritten = await erasure.rewrite(lambda done, total: None)

        manifest = Archive(url_of(s3)).manifest("acme")
        names = [entry["Key"].rpartition("/")[2] for entry in client.list_objects_v2(Bucket=BUCKET)["Contents"]]
        assert (rewritten.segments, [segment.erasures for segment in manifest.segments], len(manifest.erasures)) == (1, [1], 1)
        assert manifest.segments[0].name in names and before.name not in names
        assert not [record for record in await records_of(log, "acme") if b"c4n4ry" in record.body]
        assert [problem async for problem in problems(log)] == []
