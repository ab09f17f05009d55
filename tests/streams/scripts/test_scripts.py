"""Every script is in this suite: values in, values out, on fakeredis.

What fakeredis cannot do or does otherwise than a server stays in the suites on real servers: XSETID, and so the stretch of
`rewrite` that puts the copy in the log's place (tests/streams/test_erase.py); a server whose memory is full
(tests/streams/test_append.py); redis.sha1hex, for which tests/support/scripts.py puts a word; Cluster slots and the cost of a call.
"""

import re
from pathlib import Path

from tests.support.http import ROOT
from tests.support.scripts import Scripts


def test_every_script_is_called_in_this_suite() -> None:
    files = {path.stem for path in (ROOT / "streams" / "scripts").glob("*.lua")} - {"shared"}
    suite = [*Path(__file__).parent.glob("test_*.py"), ROOT / "tests" / "support" / "scripts.py"]
    called = {name for path in suite for name in re.findall(r'\.run\(\s*"(\w+)"', path.read_text())}

    assert len(files) > 10
    assert called == files


def test_a_position_of_fifteen_digits_is_written_in_full(scripts: Scripts) -> None:
    """Lua would write 1e+14 for it."""
    scripts.client.xadd("log", {"event": "{}"}, id="100000000000000-0")

    assert scripts.run("group_progress", ["log"]) == [b"100000000000000"]
