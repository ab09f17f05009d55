"""The table of faults: the name, the act and the parts of each.

A fault leaves the system so that it can recover by itself; the invariants say whether it did.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from tests.faults import data, deletion, processes, tables
from tests.faults.scene import Scene
from tests.faults.system import PROJECTORS


class Kind(NamedTuple):
    """A fault, and the parts of the system that it needs for itself."""

    act: Callable[[Scene], Awaitable[None]]
    parts: tuple[str, ...]


API, SERVER, PROJECTION, TABLES = "api", "server", "projection", "tables"
PROJECTOR_POINTS = {
    "after_lease_before_read": 12,
    "after_read_before_apply": 4,
    "between_rows_and_checkpoint": 6,
    "before_commit": 5,
    "after_commit_before_acknowledge": 4,
    "after_acknowledge_before_release": 4,
}
API_POINTS = {"after_parse_before_append": 30, "after_append_before_reply": 30}
REBUILD_POINTS = {
    "before_commit": 6,
    "between_rows_and_checkpoint": 4,
    "during_rebuild": 1,
    "before_swap": 1,
    "inside_swap": 1,
    "after_swap": 1,
}
VACUUM_POINTS = ("between_copy_and_back",)
DROP_POINTS = ("between_control_record_and_apply",)  # reached only when something is in quarantine just then
ARCHIVE_POINTS = ("after_archive_before_trim", "between_trims")
BACKUP_POINTS = (  # tests/projector/test_backup.py ends the commands there: they need an empty server
    "after_tables_before_log", "between_logs", "before_backup_is_complete",
    "before_tables_are_adopted", "after_tables_before_logs", "between_archive_and_server", "between_restored_logs",
)  # fmt: skip

KINDS: dict[str, Kind] = {
    "kill-api": Kind(partial(processes.kill, "api"), (API,)),
    "kill-projector": Kind(partial(processes.kill, PROJECTORS[0]), (PROJECTION,)),
    "kill-projectors": Kind(processes.kill_projectors, (PROJECTION,)),
    "kill-serve": Kind(partial(processes.kill, "server"), (SERVER,)),
    "kill-redis": Kind(processes.kill_redis, (SERVER,)),
    "burst": Kind(data.burst, ()),
    "pause-api": Kind(partial(processes.pause, "api"), (API,)),
    "pause-projector": Kind(partial(processes.pause, PROJECTORS[1]), (PROJECTION,)),
    "pause-in-hand": Kind(processes.pause_in_hand, (PROJECTION,)),
    "pause-in-transaction": Kind(processes.pause_in_transaction, (PROJECTION,)),
    "pause-serve": Kind(partial(processes.pause, "server"), (SERVER,)),
    "pause-redis": Kind(processes.pause_redis, (SERVER,)),
    "flush-scripts": Kind(data.flush_scripts, ()),
    "cut-connections": Kind(data.cut_connections, ()),
    "lose-ready-queues": Kind(data.lose_ready_queues, ()),
    "lose-leases": Kind(data.lose_leases, ()),
    "lose-groups-of-new-logs": Kind(data.lose_groups_of_new_logs, ()),
    "lose-dedup-keys": Kind(data.lose_dedup_keys, ()),
    "destroy-groups": Kind(data.destroy_groups, ()),
    "destroy-groups-and-die": Kind(data.destroy_groups_and_die, (PROJECTION,)),
    **{f"archiver-dies-at-{point}": Kind(partial(data.archive, point), ()) for point in ARCHIVE_POINTS},
    "refuse-xadd": Kind(data.refuse_xadd, (SERVER,)),
    "delete-tenant": Kind(deletion.delete_tenant, (TABLES,)),
    "rebuild": Kind(tables.rebuild, (TABLES,)),
    "rebuild-overtaken": Kind(tables.rebuild_overtaken, (TABLES,)),
    "rebuild-tenant": Kind(tables.rebuild_tenant, (TABLES,)),
    "rebuild-killed": Kind(tables.rebuild_killed, (TABLES,)),
    "roll-back": Kind(tables.roll_back, (TABLES,)),
    "drop": Kind(tables.drop, (TABLES,)),
    **{f"drop-dies-at-{point}": Kind(partial(tables.drop_dies_at, point), (TABLES,)) for point in DROP_POINTS},
    "vacuum-killed": Kind(tables.vacuum_killed, (TABLES,)),
    **{f"vacuum-dies-at-{point}": Kind(partial(tables.vacuum_dies_at, point), (TABLES,)) for point in VACUUM_POINTS},
    "restore-yesterday": Kind(tables.restore_yesterday, (API, PROJECTION, TABLES)),
    **{f"api-dies-at-{point}": Kind(partial(processes.die_at, "api", point, n), (API,)) for point, n in API_POINTS.items()},
    **{f"dies-at-{p}": Kind(partial(processes.die_at, PROJECTORS[0], p, n), (PROJECTION,)) for p, n in PROJECTOR_POINTS.items()},
    **{f"dies-alone-at-{p}": Kind(partial(processes.die_alone_at, p, n), (PROJECTION,)) for p, n in PROJECTOR_POINTS.items()},
    **{f"rebuild-dies-at-{p}": Kind(partial(tables.rebuild_dies_at, p, n), (TABLES,)) for p, n in REBUILD_POINTS.items()},
}
ERASE_POINTS = (  # tests/streams/test_erase.py passes each of them
    "between_suppression_and_control_records",
    "between_control_records",
    "while_the_log_is_copied",
    "between_log_and_archive",
    "between_segments_and_manifest",
    "between_manifest_and_removal",
)
POINTS = {
    *PROJECTOR_POINTS, *API_POINTS, *REBUILD_POINTS, *DROP_POINTS, *VACUUM_POINTS, *ARCHIVE_POINTS, *BACKUP_POINTS, *ERASE_POINTS,
    "during_deletion",
}  # fmt: skip
