"""Builds the reference pages from the docstrings, with pdoc. A warning is an error."""

from __future__ import annotations

import argparse
import inspect
import warnings
from pathlib import Path

import pdoc.render
import pdoc.render_helpers

from deepcall_async.models import Int64

# What the package itself calls: constructors of what users are given, and the like.
HIDDEN = (
    "FanOut.__init__",
    "Follower.__init__",
    "Follower.finish",
    "GroupsAPI.__init__",
    "LineWriter.relation_parts",
    "Sandbox.answer",
    "Watch.__init__",
)

_LONGEST_DEFAULT = 80

PUBLIC = ("audit", "cli", "fleet", "otel", "sandbox", "watch")


class _Long:
    """Stands for a default whose `repr` would fill the page."""

    def __repr__(self) -> str:
        return "..."


def _signature(signature: inspect.Signature, colon: bool) -> object:
    parameters = [
        each.replace(default=_Long()) if len(repr(each.default)) > _LONGEST_DEFAULT else each
        for each in signature.parameters.values()
    ]
    return pdoc.render_helpers.format_signature(signature.replace(parameters=parameters), colon)


def build(folder: Path) -> None:
    """Write the pages of the package's public modules into a folder."""
    pdoc.render.configure(
        docformat="google",
        show_source=False,
        template_directory=Path(__file__).parent / "reference",
    )
    pdoc.render.env.globals["hidden"] = HIDDEN
    pdoc.render.env.filters["format_signature"] = _signature
    # A bound that decoding checks, and no reader asks for.
    pdoc.render.env.globals["int64"] = str(Int64).replace("typing.", "")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdoc.pdoc(
            "deepcall_async",
            *(f"deepcall_async.{name}" for name in PUBLIC),
            rf"!deepcall_async\.(?!({'|'.join(PUBLIC)})$)",
            output_directory=folder,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    build(parser.parse_args().folder)
