"""Request bodies of older protocols. Pure.

The body is JSON, or a field `data` of a form or of the query holds JSON, as text or in base64.
"""

from collections.abc import Mapping
from urllib.parse import parse_qsl

import msgspec

from api.formats.base64_text import decode_base64
from api.formats.format import ForeignRequest, Unreadable
from api.formats.messages import NOT_JSON

FIELD_LIMIT = 200  # fields of a form; the formats need only a few
LINE_LIMIT = 10_000

# The percent-escapes of characters that are frequent in JSON. They are decoded first, in a whole form at once, because parse_qsl
# is slow. None of these characters is a hexadecimal digit or has a meaning in a form, so decoding them changes nothing around
# them.
_JSON_ESCAPES = [
    (case(f"%{ord(character):02x}").encode(), character.encode()) for character in '"{}[]:, ' for case in (str.upper, str.lower)
]
_decode_any = msgspec.json.Decoder().decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Payload(msgspec.Struct, frozen=True):
    """The JSON of a request, and the other fields that were sent.

    `is_form` says whether the JSON was in a field `data`.
    """

    json: bytes
    fields: Mapping[str, str]
    is_form: bool


def payload_in(request: ForeignRequest) -> Payload:
    """The payload of a request. Raises Unreadable."""
    fields = fields_of(request.query)
    body = request.body.strip()
    if body[:1] in (b"{", b"["):
        return Payload(body, fields, is_form=False)
    fields |= fields_of(body)
    if "data" not in fields:
        raise Unreadable("the body is not JSON, and neither a form nor the query has a field `data`")
    return Payload(json_in(fields.pop("data")), fields, is_form=True)


def fields_of(form: bytes, *, errors: str = "strict") -> dict[str, str]:
    """The fields of a query or form.

    The last value of a repeated field counts. `errors` says what happens to escapes that are not UTF-8, as in bytes.decode.
    Raises Unreadable.
    """
    for escaped, character in _JSON_ESCAPES:
        form = form.replace(escaped, character)
    try:
        return dict(parse_qsl(form.decode(), errors=errors, max_num_fields=FIELD_LIMIT))
    except ValueError as error:
        raise Unreadable(f"the form or query cannot be read: {error}") from None


def json_in(data: str) -> bytes:
    """The JSON in a field, as text or base64. Raises Unreadable."""
    data = data.strip()
    if data[:1] in ("{", "["):
        return data.encode()
    try:
        return decode_base64(data.replace(" ", "+")).strip()  # a plus that was not percent-encoded arrives as a space
    except ValueError:
        raise Unreadable("`data` is neither JSON nor base64") from None


def messages_in(json: bytes) -> list[bytes]:
    """The messages in a JSON list, an object, or lines of objects.

    Raises Unreadable.
    """
    if json[:1] == b"[":
        try:
            return [bytes(message) for message in _decode_list(json)]
        except NOT_JSON as error:
            raise Unreadable(f"the list of messages cannot be read: {error}") from None
    if b"\n" in json and not _is_json(json):
        lines = json.split(b"\n", LINE_LIMIT)
        if len(lines) > LINE_LIMIT:
            raise Unreadable(f"a request may have at most {LINE_LIMIT} lines")
        return [line for line in map(bytes.strip, lines) if line]
    return [json]


def _is_json(raw: bytes) -> bool:
    try:
        _decode_any(raw)
    except NOT_JSON:
        return False
    return True
