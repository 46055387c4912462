"""What pages are made of: templates, the style sheet and the script.

The templates escape every value. Jinja2 is imported on first use.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from deepcall_async.audit.labels import clean

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["assets", "template"]


@cache
def template(name: str) -> Template:
    """Load a template of this folder.

    Args:
        name: its file's name.
    """
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(
            "the HTML report needs Jinja2: pip install 'deepcall-async[cli]'"
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("deepcall_async.audit.formats", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clean"] = clean
    return environment.get_template(name)


@cache
def assets() -> dict[str, str]:
    """The style sheet and the script, and their hashes for the Content-Security-Policy."""
    found: dict[str, str] = {}
    for name, file in (("style", "report.css"), ("script", "report.js")):
        text = files("deepcall_async.audit.formats").joinpath(file).read_text("utf-8")
        digest = b64encode(hashlib.sha256(text.encode()).digest()).decode()
        found |= {name: text, f"{name}_digest": f"sha256-{digest}"}
    return found
