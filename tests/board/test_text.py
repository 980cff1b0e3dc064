from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.board.text import DASH, duration, percent, points, quantity, safe_markdown, safe_terminal


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;new title\x07text", "text"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jcleared", "cleared"),
        ("up\x1bMdown", "updown"),
        ("a\rb\nc\bd", "ab cd"),
        ("a\u202egnp.exe", "agnp.exe"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("lone \ud800", "lone \ufffd"),
        ("Größe 大 naïve", "Größe 大 naïve"),
    ],
)
def test_a_terminal_is_shown_text_without_control_sequences(hostile: str, shown: str) -> None:
    assert safe_terminal(hostile) == shown


@given(st.text(st.characters()))
def test_nothing_that_reaches_a_terminal_can_move_its_cursor(text: str) -> None:
    assert {unicodedata.category(c) for c in safe_terminal(text)}.isdisjoint({"Cc", "Cf", "Cs", "Zl", "Zp"})


@pytest.mark.parametrize(
    ("hostile", "escaped"),
    [
        ("a|b", r"a\|b"),
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt;"),
        ("[click](http://evil.example)", r"[click\](http&#58;//evil.example)"),
        ("www.evil.example me@evil.example", "www&#46;evil.example me&#64;evil.example"),
        ("*bold* _it_ `code` ~x~ $y$", r"\*bold\* \_it\_ \`code\` \~x\~ \$y\$"),
        (r"\| a", r"\\\| a"),
        ("a\n\n# heading", "a # heading"),
        ("name-1.0@0123456789ab [1.0, 2.0]", "name-1.0@0123456789ab [1.0, 2.0]"),
    ],
)
def test_markdown_shows_hostile_text_as_plain_text(hostile: str, escaped: str) -> None:
    assert safe_markdown(hostile) == escaped


def test_numbers_are_written_for_people() -> None:
    assert (percent(0.1236), percent(None)) == ("12.36", DASH)
    assert (points(0.0123), points(-0.5)) == ("+1.23", "\N{MINUS SIGN}50.00")
    assert [duration(s) for s in (None, 5, 150, 9000, 400_000)] == [DASH, "5.0 s", "2.5 min", "2.5 h", "4.6 d"]
    assert [quantity(v) for v in (None, 12, 23_500_000, 4.1e9)] == [DASH, "12", "23.5 M", "4.1 G"]
