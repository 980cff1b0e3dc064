"""Questions about a scene, balanced so that the question alone says next to nothing about the answer.

As VQA v2 does (Goyal et al. 2017, arXiv:1612.00837), the answers to one question text are kept close to equally
frequent: a question is asked only while its answer is not ahead of the text's rarest answer. The counts run on through
a split, so every split is balanced for itself, and a shorter split is the beginning of a longer one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from harness.data.shapes.drawing import COLORS, SHAPES, Stream
from harness.data.shapes.scenes import Object, Scene

PER_SCENE = 6
ANSWERS_PER_QUESTION = 10
_LEAD = {"yes/no": 1, "number": 1, "other": 3}  # how far an answer may be ahead of the same text's rarest answer
_COLORS, _YES_NO = tuple(COLORS), ("yes", "no")
_COUNTS, _TOTALS = ("0", "1", "2", "3", "4"), ("1", "2", "3", "4", "5")
_CLEARLY_APART = 8  # pixels between two centres
_CLEARLY_LARGER = 1.3  # ratio of two nominal sizes


class Template(NamedTuple):
    """One kind of question.

    Attributes:
        share: Wanted percentage of all questions.
        question_type: First words, as in VQA v2.
        answer_type: yes/no, number or other, as in VQA v2.
        answers: The plausible answers.
    """

    share: int
    question_type: str
    answer_type: str
    answers: tuple[str, ...]


TEMPLATES = {
    "color_of_shape": Template(22, "what color is the", "other", _COLORS),
    "shape_of_color": Template(20, "what shape is the", "other", SHAPES),
    "count_shape": Template(7, "how many", "number", _COUNTS),
    "count_color": Template(7, "how many", "number", _COUNTS),
    "count_all": Template(4, "how many", "number", _TOTALS),
    "any_shape": Template(10, "is there a", "yes/no", _YES_NO),
    "any_color": Template(10, "is there a", "yes/no", _YES_NO),
    "any_both": Template(7, "is there a", "yes/no", _YES_NO),
    "more": Template(4, "are there more", "yes/no", _YES_NO),
    "larger": Template(4, "is the", "yes/no", _YES_NO),
    "left_of": Template(2, "is the", "yes/no", _YES_NO),
    "above": Template(2, "is the", "yes/no", _YES_NO),
    "color_left_of": Template(1, "what color is the", "other", _COLORS),
}


@dataclass(frozen=True)
class Question:
    """One question about one scene.

    Attributes:
        template: Key of `TEMPLATES`.
        text: The question.
        answer: What is true.
    """

    template: str
    text: str
    answer: str


class Examiner:
    """Picks the questions of one split's scenes, in the scenes' order."""

    def __init__(self) -> None:
        self._answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._asked: Counter[str] = Counter()

    def ask(self, scene: Scene, stream: Stream) -> list[Question]:
        """Up to `PER_SCENE` questions with different texts."""
        pool: defaultdict[str, list[Question]] = defaultdict(list)
        for option in possible_questions(scene.objects):
            pool[option.template].append(option)
        picked: list[Question] = []
        while len(picked) < PER_SCENE and (question := self._next(pool, stream)) is not None:
            pool[question.template].remove(question)
            self._asked[question.template] += 1
            self._answers[question.text][question.answer] += 1
            picked.append(question)
        return picked

    def _next(self, pool: Mapping[str, Sequence[Question]], stream: Stream) -> Question | None:
        """A question of the template that is furthest behind its share and has one to offer."""
        for name in sorted(pool, key=lambda key: self._asked[key] / TEMPLATES[key].share):
            if (question := self._best(pool[name], stream)) is not None:
                return question
        return None

    def _best(self, options: Sequence[Question], stream: Stream) -> Question | None:
        """The option asked least often so far, of those that keep their text balanced."""
        ranked: list[tuple[int, int, Question]] = []
        for question in options:
            counts = self._answers[question.text]
            template = TEMPLATES[question.template]
            rarest = min(counts[answer] for answer in template.answers)
            if counts[question.answer] <= rarest + _LEAD[template.answer_type]:
                ranked.append((counts[question.answer], stream.below(1 << 30), question))
        return min(ranked, key=lambda entry: entry[:2])[2] if ranked else None


def human_answers(question: Question, stream: Stream) -> list[str]:
    """Ten answers in random order: mostly all alike, sometimes one and now and then three that disagree.

    The true answer is always given at least seven times, so it scores 1 under the official rules.
    """
    draw = stream.below(100)
    dissenting = 0 if draw < 70 else 1 if draw < 92 else 3
    domain = TEMPLATES[question.template].answers
    if TEMPLATES[question.template].answer_type == "number":  # people miscount by one
        place = domain.index(question.answer)
        others = domain[max(place - 1, 0) : place] + domain[place + 1 : place + 2]
    else:
        others = tuple(answer for answer in domain if answer != question.answer)
    answers = [stream.choice(others)] * dissenting + [question.answer] * (ANSWERS_PER_QUESTION - dissenting)
    stream.shuffle(answers)
    return answers


def possible_questions(objects: Sequence[Object]) -> Iterator[Question]:
    """Every question of every template that has one clear answer for these objects."""
    shapes = Counter(item.shape for item in objects)
    colors = Counter(item.color for item in objects)
    unique = {item.shape: item for item in objects if shapes[item.shape] == 1}
    for shape, item in unique.items():
        yield Question("color_of_shape", f"What color is the {shape}?", item.color)
    for item in objects:
        if colors[item.color] == 1:
            yield Question("shape_of_color", f"What shape is the {item.color} object?", item.shape)
    yield Question("count_all", "How many objects are there?", str(len(objects)))
    yield from _counts_and_presence(objects, shapes, colors)
    for first in SHAPES:
        for second in SHAPES:
            if shapes[first] != shapes[second]:
                text = f"Are there more {plural(first)} than {plural(second)}?"
                yield Question("more", text, _yes(shapes[first] > shapes[second]))
    for first, a in unique.items():
        for second, b in unique.items():
            if first != second:
                yield from _relations(first, a, second, b)
        left = [item for item in objects if a.center[0] - item.center[0] >= _CLEARLY_APART]
        doubtful = [item for item in objects if 0 <= a.center[0] - item.center[0] < _CLEARLY_APART and item is not a]
        if len(left) == 1 and not doubtful:
            yield Question("color_left_of", f"What color is the object left of the {first}?", left[0].color)


def _counts_and_presence(objects: Sequence[Object], shapes: Counter[str], colors: Counter[str]) -> Iterator[Question]:
    for shape in SHAPES:
        if str(shapes[shape]) in _COUNTS:
            yield Question("count_shape", f"How many {plural(shape)} are there?", str(shapes[shape]))
        yield Question("any_shape", f"Is there a {shape}?", _yes(shapes[shape] > 0))
    for color in COLORS:
        if str(colors[color]) in _COUNTS:
            yield Question("count_color", f"How many {color} objects are there?", str(colors[color]))
        yield Question("any_color", f"Is there a {color} object?", _yes(colors[color] > 0))
    pairs = {(item.color, item.shape) for item in objects}
    for color in colors:
        for shape in shapes:  # both occur, so only looking at them together tells
            yield Question("any_both", f"Is there a {color} {shape}?", _yes((color, shape) in pairs))


def _relations(first: str, a: Object, second: str, b: Object) -> Iterator[Question]:
    if max(a.size, b.size) >= _CLEARLY_LARGER * min(a.size, b.size):
        yield Question("larger", f"Is the {first} larger than the {second}?", _yes(a.size > b.size))
    (ax, ay), (bx, by) = a.center, b.center
    if abs(ax - bx) >= _CLEARLY_APART:
        yield Question("left_of", f"Is the {first} left of the {second}?", _yes(ax < bx))
    if abs(ay - by) >= _CLEARLY_APART:
        yield Question("above", f"Is the {first} above the {second}?", _yes(ay < by))


def plural(shape: str) -> str:
    """More than one of `shape`."""
    return shape + ("es" if shape.endswith("s") else "s")


def _yes(true: bool) -> str:
    return "yes" if true else "no"
