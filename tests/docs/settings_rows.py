"""The default and range of every setting, from the type that checks it."""

from typing import Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta

from streams.runtime import Settings


def rows_of_settings() -> dict[str, tuple[str, str]]:
    """Default and range of every setting, as the page writes them."""
    return {field.encode_name: (_default(field.default), _range(field.type)) for field in msgspec.structs.fields(Settings)}


def _default(value: Any) -> str:
    if value == "":
        return "none"
    return f"`{int(value) if isinstance(value, bool | float) and value == int(value) else value}`"


def _range(kind: Any) -> str:
    if kind is bool:
        return "`0`, `1`"
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    [bounds] = [meta for meta in getattr(kind, "__metadata__", ()) if isinstance(meta, Meta)] or [Meta()]
    if kind is str or bounds.min_length is not None:
        return "text" if bounds.min_length is None else "text, not empty"
    low = f"{bounds.ge:,}" if bounds.ge is not None else f"above {bounds.gt:,}"
    high = f" to {bounds.le:,}" if bounds.le is not None else " or more"
    return low + high
