"""The page as one file, and the headers that let a browser do nothing with it but what it is for."""

import base64
import hashlib
from functools import cache
from pathlib import Path

from edgemeta.page.document import STYLE

HERE = Path(__file__).parent
HEADERS = {  # of every answer
    "Cache-Control": "no-store",  # a page of an earlier version would not fit this one
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@cache
def page() -> tuple[bytes, str]:
    """Return the page, and its Content-Security-Policy: its own style and script, pictures, and its own origin."""
    style, script = STYLE + (HERE / "page.css").read_text(), (HERE / "page.js").read_text()
    html = (HERE / "page.html").read_text().replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html.encode(), policy


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
