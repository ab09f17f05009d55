"""JSON that is accepted, and JSON that is refused."""

import base64

from tests.support.events import body


def wrapped(raw: bytes) -> dict[str, str]:
    """An event's JSON as a payload."""
    return {"payload": base64.b64encode(raw).decode()}


def lines(*raws: bytes) -> bytes:
    return b"\n".join(raws)


def array(*raws: bytes) -> bytes:
    return b"[" + b",".join(raws) + b"]"


def event_with(value: str) -> bytes:
    """An event with a member whose JSON is the text."""
    return body(x="?").replace(b'"?"', value.encode())


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


UNHOLDABLE = {
    "NUL in a value": event_with(r'"a\u0000b"'),
    "NUL in a key": event_with(r'{"a\u0000": 1}'),
    "NUL in the session": body(session_id="S\0"),
    "NUL in the event's own name": body(event_id="\0"),
    "a raw NUL": event_with('"\0"'),
    "a lone high surrogate": event_with(r'"\ud800"'),
    "a lone low surrogate": event_with(r'"\udc00 x"'),
    "a lone surrogate in a key": event_with(r'{"\ud83d": 1}'),
    "a lone surrogate in the session": body().replace(b'"S1"', rb'"\udfff"'),
    "2^63": event_with(str(2**63)),
    "2^64": event_with(str(2**64)),
    "under -2^63": event_with(str(-(2**63) - 1)),
    "2^63 in a list": event_with(f"[{2**63}]"),
    "2^64 in an object": event_with(f'{{"a": {{"b": {2**64}}}}}'),
    "NaN": event_with("NaN"),
    "Infinity": event_with("-Infinity"),
    "1e999": event_with("1e999"),
    "-1e999 in a list": event_with("[-1e999]"),
    "101 levels": event_with(deep(101)),
    "600 levels": event_with(deep(600)),
    "20,000 levels": event_with(deep(20_000)),
    "20,000 levels of objects": event_with('{"a":' * 9_000 + "1" + "}" * 9_000),
    "invalid UTF-8": event_with('"?"').replace(b'"?"', b'"\xff"'),
    "an overlong form": event_with('"?"').replace(b'"?"', b'"\xc0\x80"'),
    "a surrogate as UTF-8": event_with('"?"').replace(b'"?"', b'"\xed\xa0\x80"'),
    "a key twice": event_with('1, "x": 2'),
    "a key twice, one escaped": event_with(r'1, "\u0078": 2'),
    "a key twice, nested": event_with('{"a": 1, "a": 1}'),
    "the session twice": event_with('1, "session_id": "S2"'),
    "5,000 digits": event_with("1" * 5_000),
    "5,000 digits in a list": event_with("[" + "9" * 5_000 + "]"),
    "-5,000 digits": event_with("-" + "7" * 5_000),
    "a BOM": b"\xef\xbb\xbf" + body(),
    "UTF-16": body().decode().encode("utf-16"),
    "a number that begins with 0": event_with("007"),
    "a trailing comma": event_with("1,"),
    "a comment": event_with("1 /* x */"),
}


NAMED = b'{"session_id":"S1","event_type":"t","timestamp":"2026-01-01T10:00:00Z"'


REFUSED = {
    "a NUL": rb'"a\u0000b"',
    "a NUL in a key": rb'{"a\u0000b":1}',
    "a NUL deep inside": rb'[{"a":["\u0000"]}]',
    "half a surrogate pair": rb'"\ud800"',
    "surrogates the wrong way round": rb'"\udc00\ud800"',
    "a surrogate before an escape": rb'"\ud800\n"',
    "a surrogate in a key": rb'{"\udfff":1}',
    "2^63": b"9223372036854775808",
    "2^63 inside": b"[9223372036854775808]",
    "-2^63-1": b"-9223372036854775809",
    "-2^63-1 inside": b'{"a":-9223372036854775809}',
    "2^64, which some parsers turn into a float": b"18446744073709551616",
    "2^64 inside": b'{"a":[18446744073709551616]}',
    "a number of 5,000 digits": b"1" * 5_000,
    "a number of 5,000 digits inside": b"[-" + b"1" * 5_000 + b"]",
    "1e999": b"1e999",
    "-1e999 inside": b"[-1e999]",
    "NaN": b"NaN",
    "NaN inside": b"[NaN]",
    "Infinity": b"Infinity",
    "-Infinity": b'{"a":-Infinity}',
    "100 arrays in an object": b"[" * 100 + b"]" * 100,
    "600 arrays": b"[" * 600 + b"]" * 600,
    "600 objects": b'{"a":' * 600 + b"1" + b"}" * 600,
    "200,000 arrays": b"[" * 200_000 + b"]" * 200_000,
    "bytes that are no UTF-8": b'"\xff"',
    "a surrogate as UTF-8": b'"\xed\xa0\x80"',
    "an overlong slash": b'"\xc0\xaf"',
    "a raw control character": b'"\x01"',
    "a key twice": b'{"a":1,"a":2}',
    "a key twice with one value": b'{"a":1,"a":1}',
    "a key twice, once escaped": rb'{"a":1,"\u0061":2}',
    "a key twice, deep inside": b'[[{"b":{"a":1,"c":0,"a":2}}]]',
    "a leading zero": b"01",
    "a trailing comma": b"[1,]",
    "a comment": b"1 /* one */",
}


ACCEPTED = {
    "the largest integer": b"9223372036854775807",
    "the smallest integer": b"-9223372036854775808",
    "the largest integer inside": b"[9223372036854775807]",
    "minus zero": b"-0.0",
    "a large float": b"1e308",
    "a float of 400 digits": b"1" * 300 + b".5",
    "a float behind 5,000 digits": b"0." + b"1" * 5_000,
    "less than the least float": b"1e-999",
    "an escaped emoji": rb'"\ud83d\ude00"',
    "an emoji": '"😀"'.encode(),
    "line separators": '"\u2028\u2029\x7f"'.encode(),
    "escapes": rb'"a\"b\\c\/d\n\t\u0001"',
    "an empty key": b'{"":1}',
    "brackets in a string": b'"' + b"[{" * 300 + b'"',
    "99 arrays in an object": b"[" * 99 + b"]" * 99,
    "many arrays side by side": b"[" + b",".join([b"[]"] * 500) + b"]",
    "the same key in different objects": b'[{"a":1},{"a":2}]',
    "a key that is also a value": b'{"a":"a","b":"b"}',
    "null": b"null",
    "digits in a string": b'["' + b"9" * 100 + b'"]',
}


def with_member(value: bytes) -> bytes:
    return NAMED + b',"x":' + value + b"}"
