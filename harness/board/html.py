"""The board as one HTML page that needs no network and runs no script but the package's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
from markupsafe import Markup

from harness.board.payload import payload
from harness.board.records import Record
from harness.board.tables import labels, title
from harness.board.templating import digest, environment, read

STATIC_ROWS = 100  # of a table, for readers without scripts
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
    style = read("style.css", "heat.css", "board.css")
    script = _script()
    names = labels(document)
    entries = {entry["entry"]: entry for entry in document["entries"]}
    unranked = [entry for entry in document["entries"] if entry["not_ranked_because"]]
    return (
        environment(keep_trailing_newline=True)
        .get_template("index.html")
        .render(
            policy=f"default-src 'none'; style-src '{digest(style)}'; script-src '{digest(script)}' 'strict-dynamic'; "
            # A page that was opened as a file is of no origin, which some browsers do not count as 'self'.
            "img-src 'self' file:; require-trusted-types-for 'script'; trusted-types board; base-uri 'none'; "
            "form-action 'none'",
            style=Markup(style),  # noqa: S704 - the package's own file
            script=Markup(script),  # noqa: S704 - the package's own file
            data=Markup(embedded(payload(document, records, board))),  # noqa: S704 - escaped there
            document=document,
            names=names,
            entries=entries,
            tables=[
                {"title": title(table), **table, "rows": table["rows"][:STATIC_ROWS]} for table in document["tables"]
            ],
            static_rows=STATIC_ROWS,
            unranked=unranked[:STATIC_ROWS],
            unranked_count=len(unranked),
            address=lambda key: f"#entry/{quote(key, safe='')}",
        )
    )


def embedded(value: Any) -> str:
    """JSON that a script element can hold whatever its texts say."""
    text = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return text


def _script() -> str:
    return '"use strict";\n(() => {\n' + read(*(f"js/{name}.js" for name in SCRIPTS)) + "})();\n"
