"""Bodies as older protocols have them: JSON, or `data` of a form or of the query, which is JSON or base64 of it. Pure."""

from collections.abc import Mapping
from urllib.parse import parse_qsl

import msgspec

from api.formats.base64_text import bytes_in
from api.formats.format import Parts, Unreadable

FIELDS = 200  # of a form; ours need a few
LINES = 10_000
_raw_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
# What escapes most of JSON, undone first and for a whole form: none of it is a hexadecimal digit or divides a form, so no other
# escape begins or ends there.
_OF_JSON = [(case(f"%{ord(plain):02x}").encode(), plain.encode()) for plain in '"{}[]:, ' for case in (str.upper, str.lower)]
_one = msgspec.json.Decoder().decode


class Sent(msgspec.Struct, frozen=True):
    """What came: the JSON, the other fields beside it, and whether it came as a field."""

    json: bytes
    fields: Mapping[str, str]
    is_form: bool


def sent_in(parts: Parts) -> Sent:
    """What a request sent. Raises Unreadable."""
    fields = fields_of(parts.query)
    body = parts.body.strip()
    if body[:1] in (b"{", b"["):
        return Sent(body, fields, is_form=False)
    fields |= fields_of(body)
    if "data" not in fields:
        raise Unreadable("neither is the body JSON, nor is there `data` in a form or in the query")
    return Sent(json_in(fields.pop("data")), fields, is_form=True)


def fields_of(form: bytes) -> dict[str, str]:
    """The fields of a query or form; of one that stands twice, the last."""
    for escaped, plain in _OF_JSON:
        form = form.replace(escaped, plain)
    try:
        return dict(parse_qsl(form.decode(), errors="strict", max_num_fields=FIELDS))
    except ValueError as error:
        raise Unreadable(f"this is no form: {error}") from None


def json_in(data: str) -> bytes:
    """The JSON that a field is, or whose base64 it is."""
    data = data.strip()
    if data[:1] in ("{", "["):
        return data.encode()
    try:
        return bytes_in(data.replace(" ", "+"))  # who does not percent-encode a plus sends a space
    except ValueError:
        raise Unreadable("`data` is neither JSON nor base64") from None


def messages_in(raw: bytes) -> list[bytes]:
    """The members of a JSON list, or one object, or objects in lines. Raises Unreadable."""
    if raw[:1] == b"[":
        try:
            return [bytes(message) for message in _raw_list(raw)]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Unreadable(f"this is no list of messages: {error}") from None
    if b"\n" in raw and not _is_json(raw):
        lines = raw.split(b"\n", LINES)
        if len(lines) > LINES:
            raise Unreadable(f"a request holds {LINES} lines at most")
        return [line for line in map(bytes.strip, lines) if line]
    return [raw]


def _is_json(raw: bytes) -> bool:
    try:
        _one(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True
