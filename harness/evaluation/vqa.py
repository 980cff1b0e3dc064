"""Visual question answering: the official VQA accuracy, resampled by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.evaluation.arrays import checked_weights, owners, ratio, sorted_ids, stored, stored_ids, within
from harness.evaluation.columns import read_json
from harness.evaluation.metric import Result
from harness.evaluation.predictions import read_vqa
from harness.evaluation.vqa_text import accuracy_in_thirds, answer_accuracy, normalize_answer

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
    images = _question_images(questions)
    people, kinds = _annotations(annotations, images)
    answers = read_vqa(results, images)
    if image_ids is not None:
        wanted = {int(image) for image in image_ids}
        unknown = wanted - set(images.values())
        if unknown:
            raise HarnessError(f"image_ids: {min(unknown)} has no question in {_name(questions, 'questions')}")
        images = {question: image for question, image in images.items() if image in wanted}
    missing = [question for question in images if question not in answers]
    if missing:
        raise HarnessError(
            f"{_name(results, 'results')}: {len(missing)} of {len(images)} questions have no answer; the first is "
            f"question {missing[0]}"
        )
    ordered = sorted(images)
    ids, _ = sorted_ids(sorted({str(image) for image in images.values()}))
    image = np.searchsorted(ids, np.array([str(images[q]) for q in ordered], dtype=np.str_)).astype(np.int32)
    score = [accuracy_in_thirds(answers[question], people[question]) for question in ordered]
    answer_types, answer_type = np.unique(np.array([kinds[q][0] for q in ordered], np.str_), return_inverse=True)
    question_types, question_type = np.unique(np.array([kinds[q][1] for q in ordered], np.str_), return_inverse=True)
    return VqaResult(
        ids,
        np.array(ordered, dtype=np.int64),
        image,
        np.array(score, dtype=np.int32),
        answer_types,
        answer_type.astype(np.int32),
        question_types,
        question_type.astype(np.int32),
    )


def _question_images(source: Path | str | Mapping[str, Any]) -> dict[int, int]:
    """Image by question id."""
    found: dict[int, int] = {}
    where = f"{_name(source, 'questions')}: questions"
    for number, entry in enumerate(_list(source, "questions")):
        question, image = _integer(entry, "question_id", number, where), _integer(entry, "image_id", number, where)
        if question in found:
            raise HarnessError(f"{where}[{number}].question_id: {question} appears twice")
        found[question] = image
    return found


def _annotations(
    source: Path | str | Mapping[str, Any], images: Mapping[int, int]
) -> tuple[dict[int, list[str]], dict[int, tuple[str, str]]]:
    """The ten human answers, and answer type and question type, by question id."""
    where = f"{_name(source, 'annotations')}: annotations"
    people: dict[int, list[str]] = {}
    kinds: dict[int, tuple[str, str]] = {}
    for number, entry in enumerate(_list(source, "annotations")):
        question = _integer(entry, "question_id", number, where)
        if question not in images:
            raise HarnessError(f"{where}[{number}].question_id: {question} is not in the questions file")
        if question in people:
            raise HarnessError(f"{where}[{number}].question_id: {question} appears twice")
        if "image_id" in entry and _integer(entry, "image_id", number, where) != images[question]:
            raise HarnessError(
                f"{where}[{number}].image_id: {entry['image_id']}, but the questions file has {images[question]}; the "
                "two files belong to different splits"
            )
        given = entry.get("answers")
        if not isinstance(given, list) or len(given) != HUMAN_ANSWERS:
            raise HarnessError(f"{where}[{number}].answers: a list of {HUMAN_ANSWERS} human answers is required")
        texts = [one.get("answer") if isinstance(one, Mapping) else None for one in given]
        kind = (entry.get("answer_type"), entry.get("question_type"))
        if not all(isinstance(text, str) for text in (*texts, *kind)):
            raise HarnessError(f"{where}[{number}]: every answer, answer_type and question_type must be text")
        people[question] = [str(text) for text in texts]
        kinds[question] = (str(kind[0]), str(kind[1]))
    lacking = next((question for question in images if question not in people), None)
    if lacking is not None:
        raise HarnessError(f"{where}: question {lacking} of the questions file has no annotation")
    return people, kinds


def _name(source: Any, otherwise: str) -> str:
    return str(source) if isinstance(source, (str, Path)) else otherwise


def _list(source: Path | str | Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    document = read_json(Path(source), "fetch it again") if isinstance(source, (str, Path)) else source
    entries = document.get(key) if isinstance(document, Mapping) else None
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise HarnessError(f"{_name(source, key)}: {key}: a list of entries is required; is this the right file?")
    if not entries:
        raise HarnessError(f"{_name(source, key)}: {key}: the list is empty; is this the right file?")
    return entries


def _integer(entry: Mapping[str, Any], key: str, number: int, where: str) -> int:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or abs(int(value)) >= 2**63:
        raise HarnessError(f"{where}[{number}].{key}: {str(value)[:60]!r} is not a whole number")
    return int(value)


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
