"""What all pages are made with: templates whose text from outside is escaped, and hashes for their policies."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.board.text import duration, percent, points, printable, quantity

TEMPLATES = Path(__file__).parent / "templates"


def environment(keep_trailing_newline: bool = False) -> Environment:
    """The package's templates, with filters that write numbers; all text from outside is escaped.

    Args:
        keep_trailing_newline: Of a template.
    """
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=keep_trailing_newline,
        finalize=_finalize,
    )
    made.filters |= {"percent": percent, "duration": duration, "quantity": quantity, "points": points}
    return made


def read(*names: str) -> str:
    """Files of the templates' folder, one after the other."""
    return "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names)


def digest(text: str) -> str:
    """The hash by which a content security policy allows a style or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _finalize(value: Any) -> Any:
    """Text from records never carries invisible, control or direction-changing characters into a page."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
