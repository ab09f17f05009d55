"""Everything that a server holds."""

from collections.abc import Iterator
from typing import Any

from tests.support.servers import Server


def everything_in(server: Server) -> Iterator[bytes]:
    """Every key and every value of the server, as bytes."""
    client = server.client
    reads: dict[bytes, Any] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"stream": lambda key: [client.xrange(key), client.xinfo_groups(key)],
    }
    for key in client.scan_iter():
        yield key
        yield repr(reads[client.type(key)](key)).encode()
