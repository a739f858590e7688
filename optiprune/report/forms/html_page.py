"""One HTML page that needs nothing else: no network, no fonts, no scripts but its own.

Values go through the template's escaping; none is put into the script or into the style. The page
forbids everything but its own style and script, known by their hashes, and images within it.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

from optiprune.report.document import Document
from optiprune.report.png import scale_of_shades

__all__ = ["html_page"]


def html_page(document: Document) -> str:
    """The page's text, to be written as UTF-8."""
    style, script = _resource("page.css"), _resource("page.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    template = _environment().get_template("page.html")
    return template.render(
        document=document, style=style, script=script, policy=policy, shades=scale_of_shades()
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("optiprune.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode("ascii")
    return environment


def _resource(name: str) -> str:
    return (files("optiprune.report") / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
