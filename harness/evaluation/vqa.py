"""Visual question answering: the official VQA accuracy, resampled by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.evaluation.arrays import (
    checked_weights,
    grouped_sums,
    owners,
    ratio,
    sorted_ids,
    stored,
    stored_ids,
    within,
)
from harness.evaluation.columns import collector_paused, column, each_type, integers, mappings, read_json, unique_ids
from harness.evaluation.metric import Result
from harness.evaluation.predictions import read_vqa
from harness.evaluation.vqa_text import accuracies_in_thirds, answer_accuracy, normalize_answer

__all__ = ["HUMAN_ANSWERS", "VqaResult", "answer_accuracy", "evaluate", "normalize_answer"]

HUMAN_ANSWERS = 10
_WHOLE = 3 * HUMAN_ANSWERS  # a question's accuracy is counted in thirtieths


def evaluate(
    questions: Path | str | Mapping[str, Any],
    annotations: Path | str | Mapping[str, Any],
    results: Path | str | Sequence[Mapping[str, Any]],
    image_ids: Sequence[int] | None = None,
) -> VqaResult:
    """Score answers by the official rules (see `answer_accuracy`).

    Args:
        questions: VQA v2 questions file, or its content.
        annotations: VQA v2 annotations file, or its content; every question has ten human answers.
        results: Results file, or its content: one answer for every question that is scored.
        image_ids: Score only these images' questions; None means all.

    Raises:
        HarnessError: A file is not valid, a question has no annotation or no answer, or an answer has no question.
    """
    with collector_paused():
        return _evaluate(questions, annotations, results, image_ids)


def _evaluate(
    questions: Path | str | Mapping[str, Any],
    annotations: Path | str | Mapping[str, Any],
    results: Path | str | Sequence[Mapping[str, Any]],
    image_ids: Sequence[int] | None,
) -> VqaResult:
    asked, images = _questions(questions)
    ids, people, answer_types, question_types = _annotations(annotations, asked, images)
    answers = read_vqa(results, asked.tolist())
    if image_ids is not None:
        wanted = np.unique(np.asarray(image_ids, dtype=np.int64))
        unknown = np.setdiff1d(wanted, images)
        if len(unknown):
            raise HarnessError(f"image_ids: {unknown[0]} has no question in {_name(questions, 'questions')}")
        kept = np.isin(images, wanted)
        asked, images = asked[kept], images[kept]
    missing = [question for question in asked.tolist() if question not in answers]
    if missing:
        raise HarnessError(
            f"{_name(results, 'results')}: {len(missing)} of {len(asked)} questions have no answer; the first is "
            f"question {missing[0]}"
        )
    order = np.argsort(ids)
    order = order[np.searchsorted(ids, asked, sorter=order)]  # the annotation of each question
    given = [answers.get(question, "") for question in ids.tolist()]  # without an answer: not asked for
    numbers, image = np.unique(images, return_inverse=True)
    texts, by_text = sorted_ids([str(number) for number in numbers.tolist()])
    place = np.empty(len(texts), np.int32)
    place[by_text] = np.arange(len(texts), dtype=np.int32)
    return VqaResult(
        texts,
        asked,
        place[image],
        accuracies_in_thirds(given, people)[order],
        *_coded(answer_types, order),
        *_coded(question_types, order),
    )


def _questions(source: Path | str | Mapping[str, Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Question ids, sorted, and the image of each, int64 [Q]."""
    where = f"{_name(source, 'questions')}: questions"
    entries = _list(source, "questions")
    ids = unique_ids(entries, "question_id", where)
    images = integers(column(entries, "image_id", where), "image_id", where)
    order = np.argsort(ids)
    return ids[order], images[order]


def _annotations(
    source: Path | str | Mapping[str, Any], asked: NDArray[np.int64], images: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[str], list[str], list[str]]:
    """In the file's order the question id, the human answers (ten each), the answer type and the question type."""
    where = f"{_name(source, 'annotations')}: annotations"
    entries = _list(source, "annotations")
    ids = unique_ids(entries, "question_id", where)
    unknown = np.flatnonzero(~np.isin(ids, asked))
    if len(unknown):
        raise HarnessError(
            f"{where}[{unknown[0]}].question_id: {ids[unknown[0]]} is not in the questions file; the two files belong "
            "to different splits"
        )
    if len(ids) < len(asked):
        lacking = np.setdiff1d(asked, ids)[0]
        raise HarnessError(f"{where}: question {lacking} of the questions file has no annotation")
    place = np.searchsorted(asked, ids)
    stated = [entry.get("image_id", image) for entry, image in zip(entries, images[place].tolist(), strict=True)]
    other = np.flatnonzero(integers(stated, "image_id", where) != images[place])
    if len(other):
        raise HarnessError(
            f"{where}[{other[0]}].image_id: {stated[other[0]]}, but the questions file has "
            f"{images[place[other[0]]]}; the two files belong to different splits"
        )
    kinds = [column(entries, key, where) for key in ("answer_type", "question_type")]
    for key, values in zip(("answer_type", "question_type"), kinds, strict=True):
        each_type(values, key, where, (str,), "text")
    return ids, _human_answers(column(entries, "answers", where), where), kinds[0], kinds[1]


def _human_answers(given: list[Any], where: str) -> list[str]:
    """The ten texts of each entry, one after the other."""
    try:
        texts = [one["answer"] for answers in given for one in answers]
        if set(map(len, given)) <= {HUMAN_ANSWERS} and set(map(type, texts)) <= {str}:
            return texts
    except (TypeError, KeyError, IndexError):
        pass
    for number, answers in enumerate(given):
        if not isinstance(answers, list) or len(answers) != HUMAN_ANSWERS:
            raise HarnessError(f"{where}[{number}].answers: a list of {HUMAN_ANSWERS} human answers is required")
        if not all(isinstance(one, Mapping) and isinstance(one.get("answer"), str) for one in answers):
            raise HarnessError(f"{where}[{number}].answers: every one must have an answer that is text")
    return [str(one["answer"]) for answers in given for one in answers]


def _coded(values: list[str], order: NDArray[np.intp]) -> tuple[NDArray[np.str_], NDArray[np.int32]]:
    """The different texts, sorted, and the index among them of the values in this order."""
    place = {name: n for n, name in enumerate(dict.fromkeys(values))}
    names, codes = np.unique(np.array(list(place), dtype=np.str_), return_inverse=True)
    used = codes[np.fromiter(map(place.__getitem__, values), np.intp, len(values))[order]]
    present, index = np.unique(used, return_inverse=True)
    return names[present], index.astype(np.int32)


def _name(source: Any, otherwise: str) -> str:
    return str(source) if isinstance(source, (str, Path)) else otherwise


def _list(source: Path | str | Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    document = read_json(Path(source), "fetch it again") if isinstance(source, (str, Path)) else source
    entries = document.get(key) if isinstance(document, Mapping) else None
    if not isinstance(entries, list) or not mappings(entries):
        raise HarnessError(f"{_name(source, key)}: {key}: a list of entries is required; is this the right file?")
    if not entries:
        raise HarnessError(f"{_name(source, key)}: {key}: the list is empty; is this the right file?")
    return entries


class VqaResult(Result):
    """Accuracy of each question, by image.

    Attributes:
        ids: str [N], COCO image ids as text.
        question_ids: int64 [Q], sorted.
        image: int32 [Q], index into `ids`.
        score: int32 [Q], accuracy in thirtieths, 0 to 30: whole numbers, so that sums are exact in any order.
        answer_types: str [A]. The official ones are number, other and yes/no.
        answer_type: int32 [Q], index into `answer_types`.
        question_types: str [T].
        question_type: int32 [Q], index into `question_types`.
    """

    metric: ClassVar[str] = "vqa_v2"
    version: ClassVar[int] = 1
    main: ClassVar[str] = "accuracy"
    breakdowns: ClassVar[tuple[str, ...]] = ("answer-type", "question-type")

    def __init__(
        self,
        ids: NDArray[np.str_],
        question_ids: NDArray[np.int64],
        image: NDArray[np.int32],
        score: NDArray[np.int32],
        answer_types: NDArray[np.str_],
        answer_type: NDArray[np.int32],
        question_types: NDArray[np.str_],
        question_type: NDArray[np.int32],
    ) -> None:
        self.ids, self.question_ids, self.image, self.score = ids, question_ids, image, score
        self.answer_types, self.answer_type = answer_types, answer_type
        self.question_types, self.question_type = question_types, question_type

    @property
    def accuracy(self) -> float:
        """The official overall accuracy, in percent, not rounded."""
        return 100 * self.reduce()["accuracy"]

    @property
    def per_answer_type(self) -> dict[str, float]:
        """The official accuracy per answer type, in percent, not rounded."""
        return self._by_type(self.answer_types, self.answer_type, 100.0)

    @property
    def per_question_type(self) -> dict[str, float]:
        """The official accuracy per question type, in percent, not rounded."""
        return self._by_type(self.question_types, self.question_type, 100.0)

    def _by_type(
        self,
        names: NDArray[np.str_],
        kind: NDArray[np.int32],
        scale: float,
        weights: NDArray[np.int64] | None = None,
    ) -> dict[str, float]:
        # bincount sums in float64, which is exact for whole numbers below 2**53
        per_question = None if weights is None else weights[self.image]
        counts = np.bincount(kind, per_question, len(names))
        sums = np.bincount(kind, self.score if per_question is None else self.score * per_question, len(names))
        return {str(n): float(v) for n, v in zip(names, scale * ratio(sums, _WHOLE * counts), strict=True)}

    def reduce(self, weights: NDArray[np.int64] | None = None) -> dict[str, float]:
        """Accuracy over all questions and over each answer type (``yes/no`` becomes ``yes_no``), as fractions.

        Args:
            weights: int64 [N], how often each image, with all its questions, counts; None means once.
        """
        w = np.ones(len(self.ids), np.int64) if weights is None else checked_weights(weights, len(self.ids))
        per_type = self._by_type(self.answer_types, self.answer_type, 1.0, w)
        return {"accuracy": float(self.reduce_main(w[None])[0])} | {
            name.replace("/", "_").replace(" ", "_"): value for name, value in per_type.items()
        }

    def reduce_main(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        """Accuracy for int64 [D, N] weightings, as fractions."""
        w = checked_weights(weights, len(self.ids))
        sums = np.bincount(self.image, self.score, len(self.ids)).astype(np.int64)
        counts = np.bincount(self.image, minlength=len(self.ids))
        return ratio(w @ sums, _WHOLE * (w @ counts))

    def reduce_by(self, kind: str, weights: NDArray[np.int64]) -> tuple[list[str], NDArray[np.float64]]:
        """Accuracy of each answer type, or of each question type."""
        w = checked_weights(weights, len(self.ids))
        names, index = (
            (self.answer_types, self.answer_type)
            if kind == "answer-type"
            else (self.question_types, self.question_type)
        )
        # first to images and types, of which there are fewer than questions in each draw
        cell, place = np.unique(self.image * np.int64(len(names)) + index, return_inverse=True)
        image, kinds = np.divmod(cell, len(names))
        score, count = np.bincount(place, self.score).astype(np.int64), np.bincount(place)
        drawn = w[:, image]
        sums = grouped_sums(drawn * score, kinds, len(names))
        return [str(name) for name in names], ratio(sums, _WHOLE * grouped_sums(drawn * count, kinds, len(names)))

    def per_class(self) -> dict[str, float]:
        """Accuracy by answer type, then by question type, as fractions."""
        answers = self._by_type(self.answer_types, self.answer_type, 1.0)
        questions = self._by_type(self.question_types, self.question_type, 1.0)
        return {f"answer type: {name}": value for name, value in answers.items()} | {
            f"question type: {name}": value for name, value in questions.items()
        }

    _ARRAYS = (
        "ids", "question_ids", "image", "score", "answer_types", "answer_type", "question_types", "question_type",
    )  # fmt: skip

    @property
    def statistics(self) -> dict[str, NDArray[Any]]:
        """The arrays named under Attributes."""
        return {name: getattr(self, name) for name in self._ARRAYS}

    @classmethod
    def from_statistics(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The inverse of `statistics`. Raises HarnessError if an array is missing or not valid."""
        ids, questions = stored_ids(arrays), stored(arrays, "question_ids", np.int64, None)
        n = len(questions)
        columns = [ids, questions]
        for name, high in (("image", len(ids) - 1), ("score", _WHOLE)):
            columns.append(within(stored(arrays, name, np.int32, n), name, 0, high))
        for names, name in (("answer_types", "answer_type"), ("question_types", "question_type")):
            columns.append(stored(arrays, names, np.str_, None))
            columns.append(within(stored(arrays, name, np.int32, n), name, 0, len(columns[-1]) - 1))
        return cls(*columns)

    @classmethod
    def merge(cls, shards: Sequence[Self]) -> Self:
        """Join shards by image id; an image comes with all its questions from the first shard that holds it."""
        ids, places = owners([shard.ids for shard in shards])
        image = [place[s.image] for s, place in zip(shards, places, strict=True)]
        kept = [one >= 0 for one in image]

        def joined(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
            return np.concatenate([column[keep] for column, keep in zip(columns, kept, strict=True)])

        questions = joined([s.question_ids for s in shards])
        order = np.argsort(questions, kind="stable")
        types = []
        for names, name in (("answer_types", "answer_type"), ("question_types", "question_type")):
            text = joined([getattr(s, names)[getattr(s, name)] for s in shards])[order]
            values, index = np.unique(text, return_inverse=True)
            types += [values, index.astype(np.int32)]
        return cls(ids, questions[order], joined(image)[order], joined([s.score for s in shards])[order], *types)
