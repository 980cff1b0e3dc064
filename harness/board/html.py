"""The board as one HTML page that needs no network and runs no script but the package's own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.board.payload import payload
from harness.board.records import Record
from harness.board.tables import labels, title
from harness.board.text import duration, percent, points, printable, quantity

STATIC_ROWS = 100  # of a table, for readers without scripts
TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("dom", "bars", "model", "table", "plots", "compare", "entry", "main")  # one after the other, one script

# Inside a script element only these end it or begin another state of the parser; as escapes they are the same JSON.
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def render(document: Mapping[str, Any], records: Sequence[Record], board: Path) -> str:
    """The page.

    Args:
        document: From `board_document`.
        records: The records that it was made from, for what the document leaves out: curves, submissions, provenance.
        board: The board's folder, where pictures lie.

    Returns:
        HTML whose bytes depend on the records only. Text from records is data of the script or escaped; the script puts
        it into the page as text. A content security policy allows the package's style and script, which may load the
        two libraries in ``assets/``, pictures beside the page, and nothing else; trusted types keep every text from
        becoming markup or an address of a script.
    """
    style = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "board.css"))
    script = _script()
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_finalize,
    )
    environment.filters |= {"percent": percent, "duration": duration, "quantity": quantity, "points": points}
    names = labels(document)
    entries = {entry["entry"]: entry for entry in document["entries"]}
    unranked = [entry for entry in document["entries"] if entry["not_ranked_because"]]
    return environment.get_template(
        "index.html"
    ).render(
        policy=f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}' 'strict-dynamic'; "
        # A page that was opened as a file is of no origin, which some browsers do not count as 'self'.
        "img-src 'self' file:; require-trusted-types-for 'script'; trusted-types board; base-uri 'none'; "
        "form-action 'none'",
        style=Markup(style),  # noqa: S704 - the package's own file
        script=Markup(script),  # noqa: S704 - the package's own file
        data=Markup(embedded(payload(document, records, board))),  # noqa: S704 - escaped there
        document=document,
        names=names,
        entries=entries,
        tables=[{"title": title(table), **table, "rows": table["rows"][:STATIC_ROWS]} for table in document["tables"]],
        static_rows=STATIC_ROWS,
        unranked=unranked[:STATIC_ROWS],
        unranked_count=len(unranked),
        address=lambda key: f"#entry/{quote(key, safe='')}",
    )


def embedded(value: Any) -> str:
    """JSON that a script element can hold whatever its texts say."""
    text = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return text


def _script() -> str:
    parts = [(TEMPLATES / "js" / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    return '"use strict";\n(() => {\n' + "".join(parts) + "})();\n"


def _finalize(value: Any) -> Any:
    """Text from records never carries invisible, control or direction-changing characters into the page."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
