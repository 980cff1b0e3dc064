"""Making text by strangers safe to print, to put into Markdown and to read."""

from __future__ import annotations

import re
import unicodedata

# Escape sequences as a whole (ECMA-48 CSI, OSC and two-character ones), so that no "[31m" debris stays behind.
_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?|\x9b[0-?]*[ -/]*[@-~]"
)
DASH = "\N{EN DASH}"
# What Markdown (with GitHub's extensions) gives a meaning inside a table's cell: emphasis, code, cells, HTML, maths,
# links, and addresses that become links by themselves.
_MARKDOWN = re.compile(r"[\\`*_|~$]|\](?=[(\[:])")
_ADDRESS = re.compile(r":(?=//)|@(?=[\w-]+\.)|(?<=www)\.", re.IGNORECASE)
_HTML = str.maketrans({"<": "&lt;", ">": "&gt;", "&": "&amp;"})


def printable(text: str) -> str:
    """The text without control sequences, control characters, invisible and direction-changing characters.

    Line breaks and tabs stay; lone surrogates become U+FFFD.
    """
    if text.isascii() and text.isprintable():
        return text
    kept = (c if c in "\n\t" else _mark(c) for c in _SEQUENCE.sub("", text))
    return "".join(kept)


def safe_terminal(text: str) -> str:
    """One line that a terminal shows as it is: nothing in it moves the cursor, colours or reorders."""
    return " ".join(printable(text).split())


def safe_markdown(text: str) -> str:
    """One line that Markdown renders as plain text: no links, images, emphasis, HTML or further table cells."""
    plain = _MARKDOWN.sub(lambda match: f"\\{match[0]}", safe_terminal(text).translate(_HTML))
    return _ADDRESS.sub(lambda match: f"&#{ord(match[0])};", plain)


def _mark(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cs":
        return "\ufffd"
    return "" if category in ("Cc", "Cf", "Zl", "Zp") else character


def percent(value: float | None, digits: int = 2) -> str:
    """A fraction as a number of percent, without the sign; a dash where it is undefined."""
    return DASH if value is None else f"{100 * value:.{digits}f}"


def points(value: float, digits: int = 2) -> str:
    """A difference of fractions in percentage points, always with its sign."""
    text = f"{100 * value:+.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def duration(seconds: float | None) -> str:
    """A duration in its largest fitting unit."""
    if seconds is None:
        return DASH
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def quantity(value: float | None, unit: str = "") -> str:
    """A number with a metric prefix and three digits, e.g. ``23.5 M``."""
    if value is None:
        return DASH
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()
