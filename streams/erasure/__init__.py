"""Erasing a data subject from a tenant's log, and deleting a tenant."""

from streams.erasure.erase import LeaseLost, NoMemoryForRewrite, Rewritten, SubjectErasure
from streams.erasure.subject import Subject
from streams.erasure.tenant_deletion import DeletedLog, delete_log, readmit_tenant

__all__ = [
    "DeletedLog",
    "LeaseLost",
    "NoMemoryForRewrite",
    "Rewritten",
    "Subject",
    "SubjectErasure",
    "delete_log",
    "readmit_tenant",
]
