"""The official VQA rules for comparing short answers: normal form, and accuracy against ten human answers.

Source: VQA evaluation code (github.com/GT-Vision-Lab/VQA, PythonEvaluationTools), and Antol et al. 2015, "VQA: Visual
Question Answering", section 3. The rules are kept with their quirks, because published numbers contain them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache


def _words(text: str) -> list[str]:
    return text.split()


_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = {
    word: str(value) for value, word in enumerate(_words("zero one two three four five six seven eight nine ten"))
} | {"none": "0"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'

# Written without their apostrophes; the apostrophe stands before the letters of the second part.
_MISSING_APOSTROPHE = _words(
    "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's "
    "isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've "
    "shouldn't somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're "
    "there's they'd they'll they're they've wasn't we've weren't what'll what're what's what've when's where'd where's "
    "where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've "
    "'twas"
)
# Two apostrophes, of which one is missing: both ways to miss one are mended.
_DOUBLE = _words(
    "couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've "
    "something'd've there'd've they'd've we'd've who'd've wouldn't've you'd've"
)
_IRREGULAR = {
    "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at",
    "somebody'd": "somebodyd",  # the table's own slip
    "yall'll": "y'all'll",
    "y'allll": "y'all'll",
    "yall'd've": "y'all'd've",
    "y'alld've": "y'all'd've",
    "y'all'dve": "y'all'd've",
}


def _contractions() -> dict[str, str]:
    table = {word.replace("'", ""): word for word in _MISSING_APOSTROPHE}
    for word in _DOUBLE:
        first, second, third = word.split("'")
        table[f"{first}{second}'{third}"] = word
        table[f"{first}'{second}{third}"] = word
    # The table also lists "Im", "Ive", "Id've" and "I'dve", which never match: words are in lower case by then.
    return table | _IRREGULAR


_CONTRACTIONS = _contractions()
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
# The official pattern is (?!<=\d)(\.)(?!\d): its first group is a misspelt look-behind that is always true here. So a
# period goes unless a digit follows. The official call also passes re.UNICODE (32) as the count: 32 periods at most.
_PERIOD = re.compile(r"\.(?!\d)")
_PERIODS_AT_MOST = int(re.UNICODE)


@lru_cache(maxsize=1 << 16)
def normalize_answer(answer: str) -> str:
    """An answer's normal form, in which the official evaluation compares answers that people did not agree on.

    Punctuation is dropped or becomes a space, lower case, articles are dropped, number words become digits, missing
    apostrophes are put in.

    Args:
        answer: Any text.
    """
    text = _clean(answer)
    drop_all = _COMMA_IN_NUMBER.search(text) is not None
    out = text
    for mark in _PUNCTUATION:
        if mark in out:
            # Whether a mark is dropped or becomes a space is asked of the whole text, as it was before.
            dropped = drop_all or f"{mark} " in text or f" {mark}" in text
            out = out.replace(mark, "" if dropped else " ")
    out = _PERIOD.sub("", out, count=_PERIODS_AT_MOST)
    words = (_NUMBERS.get(word, word) for word in out.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def answer_accuracy(answer: str, human_answers: Sequence[str]) -> float:
    """The official accuracy of one answer: the mean, over leaving out one person, of min(matches / 3, 1).

    Both sides are put into normal form only if the people's answers are not all the same text; if they are, the answer
    must be that very text (line breaks and surrounding space aside).

    Args:
        answer: The predicted answer.
        human_answers: The people's raw answers, ten in VQA v2; at least one.

    Returns:
        A fraction in [0, 1]; with ten people 0, 0.3, 0.6, 0.9 or 1.
    """
    return accuracy_in_thirds(answer, human_answers) / (3 * len(human_answers))


def accuracy_in_thirds(answer: str, human_answers: Sequence[str]) -> int:
    """`answer_accuracy` times three times the number of people: a whole number, so that sums over questions are exact.

    With m of n people matching, leaving out one of the m leaves m - 1 matches, leaving out one of the others leaves m.
    """
    given = _clean(answer)
    people = [_clean(text) for text in human_answers]
    if len(set(people)) > 1:
        given = normalize_answer(given)
        people = [normalize_answer(text) for text in people]
    matches = people.count(given)
    return matches * min(matches - 1, 3) + (len(people) - matches) * min(matches, 3) if matches else 0


def _clean(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()
