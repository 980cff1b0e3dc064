"""The official VQA rules for comparing short answers: normal form, and accuracy against ten human answers.

Source: VQA evaluation code for VQA v2 (github.com/GT-Vision-Lab/VQA, PythonEvaluationTools; its issue 14 says why
answers are left as they are where people agree), and Antol et al. 2015, "VQA: Visual
Question Answering", section 3. The rules are kept with their quirks, because published numbers contain them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


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

    In the official order: line breaks and tabs of all answers become spaces and surrounding space goes; if the people's
    answers are not all the same text then, both sides are put into normal form; if they are, the answer must be that
    very text.

    Args:
        answer: The predicted answer.
        human_answers: The people's raw answers, ten in VQA v2; at least one.

    Returns:
        A fraction in [0, 1]; with ten people 0, 0.3, 0.6, 0.9 or 1.
    """
    texts = Numbering()
    people = HumanAnswers(texts.of(human_answers, len(human_answers))[None], list(texts))
    return float(people.accuracies([0], [answer])[0] / (3 * len(human_answers)))


class Numbering(dict[str, int]):
    """A number for each different text, by first occurrence; the texts in order are its keys."""

    def __missing__(self, text: str) -> int:
        number = self[text] = len(self)
        return number

    def of(self, texts: Iterable[str], count: int) -> NDArray[np.int32]:
        """The number of each of `count` texts, int32 [count]."""
        return np.fromiter(map(self.__getitem__, texts), np.int32, count)


class HumanAnswers:
    """The human answers of Q questions by P people each, ready for any number of predictions.

    Every different text is cleaned and put into normal form once and then stands for a number.

    Args:
        people: int32 [Q, P], indices into `texts`.
        texts: All different raw answers.
    """

    def __init__(self, people: NDArray[np.int32], texts: Sequence[str]) -> None:
        self._clean, self._normal = Numbering(), Numbering()
        clean = self._clean.of(map(_clean, texts), len(texts))[people]
        self._agree = (clean == clean[:, :1]).all(axis=1)
        # Where people agree their text counts as it is.
        normal = self._normal.of(map(normalize_answer, texts), len(texts))
        self._people = np.where(self._agree[:, None], clean, normal[people])

    def accuracies(self, questions: Sequence[int] | NDArray[np.intp], answers: Sequence[str]) -> NDArray[np.int32]:
        """`answer_accuracy` times three times the number of people: whole numbers, so that sums are exact.

        Args:
            questions: int64 [N], which questions.
            answers: The predicted answer to each.

        Returns:
            int32 [N], 0 to 3 P.
        """
        texts = Numbering()
        given = texts.of(answers, len(answers))
        # Of a text that nobody gave, the number is one that nobody has.
        clean = np.array([self._clean.get(_clean(text), -1) for text in texts], np.int32)
        normal = np.array([self._normal.get(normalize_answer(text), -1) for text in texts], np.int32)
        wanted = np.where(self._agree[questions], clean[given], normal[given])
        people = self._people[questions]
        matches, count = (people == wanted[:, None]).sum(axis=1, dtype=np.int32), people.shape[1]
        # Leaving out one of the m who match leaves m - 1 matches, leaving out one of the others leaves m.
        thirds: NDArray[np.int32] = matches * np.clip(matches - 1, 0, 3) + (count - matches) * np.minimum(matches, 3)
        return thirds.astype(np.int32)


def _clean(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()
