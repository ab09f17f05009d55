"""Mistakes that the fault test must catch."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """A mistake, the faults that show it, and the texts that plant it."""

    name: str
    faults: str
    complaint: str
    edits: tuple[tuple[str, str, str], ...]


XADD = (
    "redis.call('XADD', log, position .. '-0', 'event', body, 'received_at_us', received_at_us,\n"
    "      'version', hash_parts == 'dead_letter' and '3' or '1')"
)
SET = "redis.call('SET', KEYS[i], value and (value .. ' ' .. entry) or entry, 'PX', window_ms)"
ADD_SESSIONS = "self._connection.executemany(self.add_to_session, map(msgspec.structs.astuple, sessions))"
INSERT = "self._insert(rows, additions, {**moved, **plan.placed})"

MUTANTS = [
    Mutant(
        "a deduplication key is written before its event",
        "refuse-xadd",
        "deduplication key|receipt-unknown",  # a client may ask for the promised position before the check
        (("streams/scripts/append.lua", f"    {XADD}\n", ""), ("streams/scripts/append.lua", SET, f"{SET}\n    {XADD}")),
    ),
    Mutant(
        "acknowledged before the commit",
        "dies-alone-at-before_commit",
        "acknowledged, but not in the tables",
        (
            (
                "projector/live/worker.py",
                "                applied += advance(tenants, batches, ",
                "                advance(tenants, batches, [True] * len(batches))\n"
                "                await self._acknowledge(tenants)\n"
                "                applied += advance(tenants, batches, ",
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
        "lose-dedup-keys",
        "late",
        (("projector/store/sqlite/event_rows.py", "            counts.late_duplicates += 1\n", ""),),
    ),
    Mutant(
        "a session counts a record that was skipped",
        "lose-dedup-keys",
        "sessions that count",
        (
            ("projector/store/sqlite/event_rows.py", f"        if not {INSERT}:\n            return False\n", f"        inserted = {INSERT}\n"),
            ("projector/store/sqlite/event_rows.py", f"        {ADD_SESSIONS}\n        return True\n", f"        {ADD_SESSIONS}\n        return inserted\n"),
        ),
    ),
    Mutant(
        "a lost group is made again at the end of the log",
        "destroy-groups-and-die",
        "acknowledged, but not in the tables",
        (("streams/consumer.py", 'self._group, f"{request.after}-0")', 'self._group, "$")'),),
    ),
    Mutant(
        "sessions are written in a transaction of their own",
        "dies-alone-at-before_commit",
        "sessions that count",
        (
            ("projector/store/sqlite/event_rows.py", ADD_SESSIONS, 'self.later = [*getattr(self, "later", ()), *map(msgspec.structs.astuple, sessions)]'),
            (
                "projector/store/sqlite/store.py",
                "            return written\n",
                "        with self.transaction():\n"
                '            self._connection.executemany(live.rows_of_events.add_to_session, getattr(live.rows_of_events, "later", ()))\n'
                "        return written\n",
            ),
        ),
    ),
    Mutant(
        "a control record is carried out and not counted itself",
        "drop-dies-at-between_control_record_and_apply",
        "dropped",
        (("projector/store/sqlite/tombstones.py", "counts.dropped += 1\n", "counts.dropped += 0\n"),),
    ),
    Mutant(
        "a rebuild ignores control records",
        "drop-dies-at-between_control_record_and_apply,rebuild",
        "dropped|in quarantine",
        (("projector/rebuild/rebuild.py", "        store.write(name, chunk)\n        failpoint", "        chunk = msgspec.structs.replace(chunk, batches=[msgspec.structs.replace(batch, control_records=[]) for batch in chunk.batches])\n        store.write(name, chunk)\n        failpoint"),),
    ),
    Mutant(
        "hash_parts are not compared in the log",
        "none",
        "conflict",
        (("streams/scripts/append.lua", "    if entry_parts == hash_parts then return position, digest end\n", "    return position, digest\n"),),
    ),
    Mutant(
        "hash_parts are not compared in the tables",
        "none",
        "is in quarantine",
        (
            ("projector/store/sqlite/schema.py", "(tenant_id, timestamp_us, event_hash, hash_parts)", "(tenant_id, timestamp_us, event_hash)"),
            ("projector/store/sqlite/event_rows.py", "event_hash = ? AND hash_parts = ?", "event_hash = ? AND ? <> ''"),
        ),
    ),
    Mutant(
        "duplicates are not counted",
        "none",
        "counted 0 duplicate",
        (("streams/scripts/append.lua", "if counts[2] > 0 then", "if false then"),),
    ),
    Mutant(
        "the tables do not remember deleted tenants",
        "delete-tenant",
        "was deleted|which has no log",
        (
            ("projector/store/sqlite/tenant_deletion.py", '        file.execute("INSERT OR IGNORE INTO deleted_tenants VALUES (?)", (keys_of(tenant).digest,))\n', ""),
            ("streams/scripts/delete_tenant.lua", "redis.call('SADD', deleted, tenant_digest)\n", ""),
        ),
    ),
    Mutant(
        "a swap that does not read the last stretch",
        "rebuild-overtaken",
        "checkpoint|acknowledged, but not in the tables",  # one loss, met by the watcher or by the check
        (
            (
                "projector/rebuild/swap.py",
                "                    swap.apply(batch)\n",
                "                    break\n",
            ),
        ),
    ),
]  # fmt: skip
