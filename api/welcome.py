"""GET /: what this server is, and where to look next.

Browsers get a page, all others get text. Neither names a tenant of this server, or shows a secret.
"""

import base64
import hashlib
import re
from html import escape
from importlib.metadata import version

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from streams.runtime import Settings

EVENT = '{"session_id": "S123", "event_type": "page_view", "timestamp": "2026-01-01T10:00:00Z"}'
PATHS = (
    ("POST", "/api/events", "send an event, or a batch of events"),
    ("GET", "/api/events", "read events back from the tables"),
    ("GET", "/api/sessions", "read sessions"),
    ("GET", "/openapi.json", "every endpoint, with its parameters, answers and problems"),
    ("GET", "/readyz", "whether the server is ready for events, and what is wrong if not"),
    ("GET", "/metrics", "figures for Prometheus"),
)
LINKED = frozenset({"/openapi.json", "/readyz", "/metrics"})  # they need no tenant, so a browser can open them
SUMMARY = "The HTTP API of Penstock. It takes events over HTTP and never loses or doubles an event."
DOCUMENTATION = "The documentation is in README.md and in the folder docs of the source."

STYLE = """
:root { color-scheme: light dark; --text: #1d2126; --quiet: #5b6570; --page: #fff; --panel: #f3f5f7; --line: #dde2e7;
  --link: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e8ec; --quiet: #9aa5b1; --page: #14171a; --panel: #1f2429; --line: #343b43; --link: #7db8f5; }
}
body { margin: 0 auto; max-width: 46rem; padding: 2.5rem 1.25rem 4rem; font: 1rem/1.55 system-ui, sans-serif;
  color: var(--text); background: var(--page); }
h1 { margin: 0; font-size: 1.75rem; }
h1 small, .quiet { color: var(--quiet); font-weight: normal; font-size: 1rem; }
h2 { margin: 2rem 0 .5rem; font-size: 1.1rem; }
pre { margin: .5rem 0; padding: .75rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .875rem;
  background: var(--panel); border: 1px solid var(--line); border-radius: .4rem; }
code, pre { font-family: ui-monospace, monospace; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .35rem 1.25rem; margin: .5rem 0; }
dd { margin: 0; color: var(--quiet); }
a { color: var(--link); }
@media (max-width: 34rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin: 0 0 .6rem; } }
"""
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "vary": "accept",
}

_is_host = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?").fullmatch


class Example(msgspec.Struct, frozen=True):
    """Commands for a shell: make keys if needed, send an event, read it."""

    make_keys: str
    send: str
    read: str


async def welcome(request: Request) -> Response:
    """GET /."""
    settings: Settings = request.app.state.settings
    example = example_of(settings, base_url(request, settings))
    if "text/html" in request.headers.get("accept", ""):
        return Response(page_of(example), media_type="text/html", headers=HEADERS)
    return Response(text_of(example), media_type="text/plain", headers=HEADERS)


def base_url(request: Request, settings: Settings) -> str:
    """The URL under which the client reached this server.

    A Host header that is no plain host is ignored; so the URL is safe in a shell.
    """
    host = request.headers.get("host", "")
    return f"{request.url.scheme}://{host}" if _is_host(host) else local_url(settings)


def local_url(settings: Settings) -> str:
    """The URL of this server on its own machine."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::", "") else settings.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def example_of(settings: Settings, url: str) -> Example:
    """Commands that work for this AUTH mode."""
    if settings.auth == "open":
        make_keys, who = "", "-H 'X-Tenant-ID: acme'"
    else:
        make_keys, who = "KEY=$(penstock api key create acme --role admin)", '-H "Authorization: Bearer $KEY"'
    return Example(make_keys, f"curl -i {url}/api/events {who} -d '{EVENT}'", f"curl {url}/api/events {who}")


def text_of(example: Example) -> str:
    """The answer for a terminal."""
    paths = "\n".join(f"  {method:4} {path:14} {meaning}" for method, path, meaning in PATHS)
    commands = "\n".join(f"  {command}" for command in msgspec.structs.astuple(example) if command)
    return f"Penstock {version('penstock')}\n{SUMMARY}\n\nTry it:\n{commands}\n\nPaths:\n{paths}\n\n{DOCUMENTATION}\n"


def page_of(example: Example) -> str:
    """The answer for a browser."""
    links = {path: f'<a href="{path}">{path}</a>' for path in LINKED}
    paths = "\n".join(
        f"<dt><code>{method} {links.get(path, path)}</code></dt><dd>{meaning}</dd>" for method, path, meaning in PATHS
    )
    make_keys = f"<h2>Make a key</h2>\n<pre>{escape(example.make_keys)}</pre>\n" if example.make_keys else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Penstock</title>
<style>{STYLE}</style>
</head>
<body>
<h1>Penstock <small>{escape(version("penstock"))}</small></h1>
<p>{SUMMARY}</p>
{make_keys}<h2>Send an event</h2>
<pre>{escape(example.send)}</pre>
<h2>Read it back</h2>
<pre>{escape(example.read)}</pre>
<h2>Paths</h2>
<dl>
{paths}
</dl>
<p class="quiet">{DOCUMENTATION}</p>
</body>
</html>
"""
