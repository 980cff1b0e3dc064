"""The one exception that users see: a sentence that names the place, the value and the mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HarnessError(Exception):
    """Bad input. The command line prints the message as one line and exits with code 2.

    The message names the file, the field, the offending value and what to do about it.
    """


def suggestion(value: object, options: Iterable[str], listing: str = "") -> str:
    """The tail of an error about an unknown name: a did-you-mean and where the valid names are listed.

    Args:
        value: What the user wrote.
        options: The valid names.
        listing: A command that lists them, e.g. ``"harness ls backbones"``.

    Returns:
        A text such as ``"; did you mean 'resnet50'? (harness ls backbones)"``.
    """
    names = sorted(options)
    close = difflib.get_close_matches(str(value), names, n=1, cutoff=0.6)
    if close:
        text = f"; did you mean {close[0]!r}?"
    elif names and len(names) <= 20:
        text = f"; valid are {', '.join(names)}"
    else:
        text = ""
    return f"{text} ({listing})" if listing else text
