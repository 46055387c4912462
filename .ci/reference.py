"""Builds the reference pages from the docstrings, with pdoc. A warning is an error."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import pdoc.render

PUBLIC = ("audit", "cli", "fleet", "otel", "sandbox", "watch")


def build(folder: Path) -> None:
    """Write the pages of the package's public modules into a folder."""
    pdoc.render.configure(
        docformat="google",
        show_source=False,
        template_directory=Path(__file__).parent / "reference",
    )
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
