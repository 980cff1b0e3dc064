"""Reading VQA v2 questions and annotations, column by column.

Plain files are decoded straight into typed entries that hold the needed keys alone. Anything unusual, be it wrong or
not, and loaded content is read with care instead, which finds the words for what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.evaluation.columns import (
    Id,
    column,
    distinct,
    each_type,
    integers,
    mappings,
    read_json,
    read_typed,
    unique_ids,
)
from harness.evaluation.vqa_text import Numbering

HUMAN_ANSWERS = 10
_UNSTATED = object()  # an annotation need not repeat its question's image
Source = Path | str | Mapping[str, Any]


class Annotations(NamedTuple):
    """The columns of an annotations file of Q entries, in the file's order.

    Attributes:
        ids: int64 [Q], question ids, all different.
        texts: The number of each different human answer.
        people: int32 [Q, 10], the human answers' numbers.
        answer_types: The different answer types.
        answer_type: int32 [Q], index into them.
        question_types: The different question types.
        question_type: int32 [Q], index into them.
    """

    ids: NDArray[np.int64]
    texts: Numbering
    people: NDArray[np.int32]
    answer_types: list[str]
    answer_type: NDArray[np.int32]
    question_types: list[str]
    question_type: NDArray[np.int32]


def read_questions(source: Source) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Question ids, sorted, and the image of each, int64 [Q].

    Args:
        source: A questions file, or its content.

    Raises:
        HarnessError: The file is not valid, a key is missing or of the wrong type, or an id appears twice.
    """
    where = f"{name_of(source, 'questions')}: questions"
    typed = _typed(source, _Questions)
    if typed is not None and typed.questions:
        ids = distinct(np.array([one.question_id for one in typed.questions], np.int64), "question_id", where)
        images = np.array([one.image_id for one in typed.questions], np.int64)
    else:
        entries = _list(source, "questions")
        ids = unique_ids(entries, "question_id", where)
        images = integers(column(entries, "image_id", where), "image_id", where)
    order = np.argsort(ids)
    return ids[order], images[order]


def read_annotations(source: Source, asked: NDArray[np.int64], images: NDArray[np.int64]) -> Annotations:
    """The annotation of every question.

    Args:
        source: An annotations file, or its content.
        asked: int64 [Q], question ids, sorted.
        images: int64 [Q], the image of each.

    Raises:
        HarnessError: The file is not valid, a key is missing or of the wrong type, an annotation has no question or
            another image, or a question has no annotation.
    """
    where = f"{name_of(source, 'annotations')}: annotations"
    typed = _typed(source, _Annotations)
    entries: Sequence[Any] = [] if typed is None else typed.annotations
    texts, found = Numbering(), None
    if entries:
        found = _numbered_people(texts, map(attrgetter("answers"), entries), attrgetter("answer"), len(entries))
    if found is not None:
        ids = distinct(np.array([one.question_id for one in entries], np.int64), "question_id", where)
        _of_the_questions(ids, [one.image_id for one in entries], asked, images, where)
        kinds = [[one.answer_type for one in entries], [one.question_type for one in entries]]
    else:
        entries = _list(source, "annotations")
        ids = unique_ids(entries, "question_id", where)
        _of_the_questions(ids, _stated_images(entries), asked, images, where)
        kinds = [column(entries, key, where) for key in ("answer_type", "question_type")]
        for key, values in zip(("answer_type", "question_type"), kinds, strict=True):
            each_type(values, key, where, (str,), "text")
        answers = column(entries, "answers", where)
        texts = Numbering()
        found = _numbered_people(texts, answers, itemgetter("answer"), len(answers))
        if found is None:
            found = _people_with_care(texts, answers, where)
    names, codes = [Numbering(), Numbering()], []
    for numbering, values in zip(names, kinds, strict=True):
        codes.append(numbering.of(values, len(values)))
    return Annotations(ids, texts, found, list(names[0]), codes[0], list(names[1]), codes[1])


def name_of(source: Any, otherwise: str) -> str:
    """A file's name for errors; `otherwise` for loaded content."""
    return str(source) if isinstance(source, (str, Path)) else otherwise


class _Question(msgspec.Struct, gc=False):
    question_id: Id
    image_id: Id


class _Questions(msgspec.Struct):
    questions: list[_Question]


class _Answer(msgspec.Struct, gc=False):
    answer: str


class _Annotation(msgspec.Struct):
    question_id: Id
    image_id: Id
    answer_type: str
    question_type: str
    answers: list[_Answer]


class _Annotations(msgspec.Struct):
    annotations: list[_Annotation]


Kind = TypeVar("Kind", _Questions, _Annotations)


def _typed(source: Source, kind: type[Kind]) -> Kind | None:
    return read_typed(Path(source), kind) if isinstance(source, (str, Path)) else None


def _numbered_people(texts: Numbering, answers: Iterable[Any], text_of: Any, entries: int) -> NDArray[np.int32] | None:
    """The number of each human answer, int32 [Q, 10]; None where an entry has not ten answers that are text."""
    try:
        each = list(answers)
        if set(map(len, each)) != {HUMAN_ANSWERS}:
            return None
        codes = texts.of(map(text_of, chain.from_iterable(each)), HUMAN_ANSWERS * entries)
    except (TypeError, KeyError, IndexError):
        return None
    return codes.reshape(entries, HUMAN_ANSWERS) if set(map(type, texts)) == {str} else None


def _people_with_care(texts: Numbering, given: list[Any], where: str) -> NDArray[np.int32]:
    for number, answers in enumerate(given):
        if not isinstance(answers, list) or len(answers) != HUMAN_ANSWERS:
            raise HarnessError(f"{where}[{number}].answers: a list of {HUMAN_ANSWERS} human answers is required")
        if not all(isinstance(one, Mapping) and isinstance(one.get("answer"), str) for one in answers):
            raise HarnessError(f"{where}[{number}].answers: every one must have an answer that is text")
    texts.clear()
    people = [str(one["answer"]) for answers in given for one in answers]
    return texts.of(people, len(people)).reshape(len(given), HUMAN_ANSWERS)


def _stated_images(entries: Sequence[Mapping[str, Any]]) -> list[Any]:
    try:
        return list(map(itemgetter("image_id"), entries))
    except KeyError:
        return [entry.get("image_id", _UNSTATED) for entry in entries]


def _of_the_questions(
    ids: NDArray[np.int64], stated: list[Any], asked: NDArray[np.int64], images: NDArray[np.int64], where: str
) -> None:
    """Refuse annotations of other questions, of too few, or of other images."""
    place = np.minimum(np.searchsorted(asked, ids), len(asked) - 1)
    unknown = np.flatnonzero(asked[place] != ids)
    if len(unknown):
        raise HarnessError(
            f"{where}[{unknown[0]}].question_id: {ids[unknown[0]]} is not in the questions file; the two files belong "
            "to different splits"
        )
    if len(ids) < len(asked):
        lacking = np.setdiff1d(asked, ids)[0]
        raise HarnessError(f"{where}: question {lacking} of the questions file has no annotation")
    if _UNSTATED in stated:
        stated = [image if one is _UNSTATED else one for one, image in zip(stated, images[place].tolist(), strict=True)]
    other = np.flatnonzero(integers(stated, "image_id", where) != images[place])
    if len(other):
        raise HarnessError(
            f"{where}[{other[0]}].image_id: {stated[other[0]]}, but the questions file has "
            f"{images[place[other[0]]]}; the two files belong to different splits"
        )


def _list(source: Source, key: str) -> list[Mapping[str, Any]]:
    document = read_json(Path(source), "fetch it again") if isinstance(source, (str, Path)) else source
    entries = document.get(key) if isinstance(document, Mapping) else None
    if not isinstance(entries, list) or not mappings(entries):
        raise HarnessError(f"{name_of(source, key)}: {key}: a list of entries is required; is this the right file?")
    if not entries:
        raise HarnessError(f"{name_of(source, key)}: {key}: the list is empty; is this the right file?")
    return entries
