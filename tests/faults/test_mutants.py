"""The fault test sees what it is for: a mistake is planted in a copy of the code, and it must be caught, and nothing else.

A text that is not found any more fails the test: the mistake is then to be planted where the code has moved.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
ROUNDS = 3


class Mutant(NamedTuple):
    """A mistake: what it is, the faults that show it, a pattern of the complaint, and the texts that plant it."""

    name: str
    faults: str
    complaint: str
    edits: tuple[tuple[str, str, str], ...]


XADD = (
    "redis.call('XADD', log, position .. '-0', 'event', body, 'received_at_us', received_at_us,\n"
    "      'version', hash_parts == 'dead_letter' and '3' or '1')"
)
SET = "redis.call('SET', KEYS[i], value and (value .. ' ' .. claim) or claim, 'PX', window_ms)"
ADD_SESSIONS = "self._connection.executemany(self._add_to_session, map(msgspec.structs.astuple, sessions))"
FOLD_SESSIONS = "self._add_to_sessions(added)"

MUTANTS = [
    Mutant(
        "a claim is written before its event",
        "refuse-xadd",
        "`seen` claims|receipt-unknown",  # a reader may ask for the promised position before the quiet point
        (("streams/scripts/append.lua", f"    {XADD}\n", ""), ("streams/scripts/append.lua", SET, f"{SET}\n    {XADD}")),
    ),
    Mutant(
        "acknowledged before the commit",
        "dies-alone-at-before_commit",
        "acknowledged, but not in the tables",
        (
            (
                "projector/live/worker.py",
                "                applied += self._apply(turns, batches)\n",
                "                for batch in batches:\n"
                "                    turns[batch.tenant].checkpoint = Checkpoint(batch.through, batch.digest, 0)\n"
                "                await self._acknowledge(turns)\n"
                "                applied += self._apply(turns, batches)\n",
            ),
        ),
    ),
    Mutant(
        "the checkpoint is not compared",
        "pause-in-hand",
        "sessions that count",
        (("projector/store/sqlite/table_set.py", "if before.position != batch.after or ", "if before.position < 0 or "),),
    ),
    Mutant(
        "a late duplicate is not counted as one",
        "forget-seen",
        "late",
        (("projector/store/sqlite/table_set.py", "            return 1, []\n", "            return 0, []\n"),),
    ),
    Mutant(
        "a session counts a record that was skipped",
        "forget-seen",
        "sessions that count",
        (
            ("projector/store/sqlite/table_set.py", "        if self._connection.executemany(self._insert_event, values).rowcount != len(rows):\n            return False\n", "        inserted = self._connection.executemany(self._insert_event, values).rowcount\n"),
            ("projector/store/sqlite/table_set.py", f"        {FOLD_SESSIONS}\n        return True\n", f"        {FOLD_SESSIONS}\n        return inserted == len(rows)\n"),
        ),
    ),
    Mutant(
        "a lost group is made again at the end of the log",
        "destroy-groups-and-die",
        "acknowledged, but not in the tables",
        (("streams/consumer.py", 'self._group, f"{want.after}-0")', 'self._group, "$")'),),
    ),
    Mutant(
        "sessions are written in a transaction of their own",
        "dies-alone-at-before_commit",
        "sessions that count",
        (
            ("projector/store/sqlite/table_set.py", ADD_SESSIONS, 'self.later = [*getattr(self, "later", ()), *map(msgspec.structs.astuple, sessions)]'),
            (
                "projector/store/sqlite/store.py",
                "            return written\n",
                "        with self.transaction():\n"
                '            self._connection.executemany(live._add_to_session, getattr(live, "later", ()))\n'
                "        return written\n",
            ),
        ),
    ),
    Mutant(
        "a note is carried out and has no place itself",
        "drop-dies-at-between_note_and_apply",
        "gone|dropped",
        (("projector/store/sqlite/tombstones.py", "        counts.dropped += 1\n", ""),),
    ),
    Mutant(
        "replayed tables hear of no note",
        "drop-dies-at-between_note_and_apply,rebuild",
        "gone|dropped|in quarantine",
        (("projector/rebuild/rebuild.py", "        store.write(tables, chunk)\n        failpoint", "        chunk = msgspec.structs.replace(chunk, batches=[msgspec.structs.replace(batch, control_records=[]) for batch in chunk.batches])\n        store.write(tables, chunk)\n        failpoint"),),
    ),
    Mutant(
        "a name in the log without its split",
        "none",
        "conflict",
        (("streams/scripts/append.lua", "    if hash_parts == wanted then return position, digest end\n", "    return position, digest\n"),),
    ),
    Mutant(
        "a name in the tables without its split",
        "none",
        "is in quarantine",
        (
            ("projector/store/sqlite/schema.py", "(tenant_id, timestamp_us, event_hash, hash_parts)", "(tenant_id, timestamp_us, event_hash)"),
            ("projector/store/sqlite/table_set.py", "event_hash = ? AND hash_parts = ?", "event_hash = ? AND ? <> ''"),
        ),
    ),
    Mutant(
        "duplicates are not counted",
        "none",
        "counted 0 duplicate",
        (("streams/scripts/append.lua", "if counts[2] > 0 then", "if false then"),),
    ),
    Mutant(
        "the tables forget who was erased",
        "erase",
        "was erased|who has no log",
        (
            ("projector/store/sqlite/tenant_deletion.py", '        store.execute("INSERT OR IGNORE INTO deleted_tenants VALUES (?)", (keys_of(tenant).digest,))\n', ""),
            ("streams/scripts/delete_tenant.lua", "redis.call('SADD', erased, tenant_digest)\n", ""),
        ),
    ),
    Mutant(
        "a swap that does not read the last stretch",
        "rebuild-overtaken",
        "checkpoint|acknowledged, but not in the tables",  # whichever a look in the middle meets first: it is the same loss
        (
            (
                "projector/rebuild/rebuild.py",
                "                    tables.apply(batch)\n",
                "                    break\n",
            ),
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_planted_mistake_is_caught(mutant: Mutant) -> None:
    with tempfile.TemporaryDirectory(prefix="pm-") as folder:
        copy_code(Path(folder))
        for file, old, new in mutant.edits:
            path = Path(folder, file)
            text = path.read_text()
            assert text.count(old) == 1, f"{file} does not hold this text once any more: {old}"
            path.write_text(text.replace(old, new))

        status, said = run_faults(Path(folder), mutant.faults)

    assert status == 1 and re.search(mutant.complaint, said.partition("VIOLATED")[2]), said


@pytest.mark.parametrize("faults", dict.fromkeys(mutant.faults for mutant in MUTANTS))
def test_the_code_without_a_mistake_passes(faults: str) -> None:
    with tempfile.TemporaryDirectory(prefix="pm-") as folder:
        copy_code(Path(folder))

        status, said = run_faults(Path(folder), faults)

    assert status == 0, said


def copy_code(folder: Path) -> None:
    """The packages and the Procfile, to be changed and started elsewhere."""
    for package in ("streams", "projector", "api"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Procfile", folder)


def run_faults(code: Path, faults: str) -> tuple[int, str]:
    """A few rounds with these faults; the status and what was said."""
    command = [
        sys.executable,
        "-m",
        "tests.faults.rounds",
        "--rounds",
        str(ROUNDS),
        "--seed",
        "1",
        "--code",
        str(code),
        "--only",
        faults,
    ]
    environment = os.environ | {"TMPDIR": str(code)}  # where a system that broke a rule leaves its files
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180, check=False)
    return run.returncode, run.stdout + run.stderr
