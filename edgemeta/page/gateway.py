"""The gateway's page: one file, of which a browser takes the script and the style that are in it, and nothing else."""

import base64
import hashlib
from functools import cache
from pathlib import Path

from edgemeta.page.document import STYLE

HERE = Path(__file__).parent


@cache
def gateway_page(version: str) -> tuple[dict[str, str], bytes]:
    """Return the headers and the page. version: of the package; a page of another one says that it is old."""
    style = STYLE + (HERE / "gateway.css").read_text(encoding="utf-8")
    script = (HERE / "gateway.js").read_text(encoding="utf-8")
    page = (HERE / "gateway.html").read_text(encoding="utf-8")
    for name, text in (("version", version), ("style", style), ("script", script)):
        page = page.replace(f"{{{name}}}", text, 1)
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-store",
    }
    return headers, page.encode()


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
