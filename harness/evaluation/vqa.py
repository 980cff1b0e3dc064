"""Visual question answering: the official VQA accuracy, resampled by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.evaluation.arrays import (
    Weights,
    checked_weights,
    grouped_sums,
    owners,
    ratio,
    require,
    sorted_ids,
    stored,
    stored_ids,
    within,
)
from harness.evaluation.columns import collector_paused
from harness.evaluation.metric import SummedResult
from harness.evaluation.predictions import read_answers
from harness.evaluation.vqa_files import HUMAN_ANSWERS, Annotations, name_of, read_annotations, read_questions
from harness.evaluation.vqa_text import HumanAnswers, answer_accuracy, normalize_answer

__all__ = [
    "HUMAN_ANSWERS",
    "VqaGroundTruth",
    "VqaResult",
    "answer_accuracy",
    "evaluate",
    "normalize_answer",
    "read_truth",
]

_WHOLE = 3 * HUMAN_ANSWERS  # a question's accuracy is counted in thirtieths
_POSSIBLE = (0, 9, 18, 27, 30)  # of none, one, two, three and more people who agree; see `answer_accuracy`


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
    return read_truth(questions, annotations).evaluate(results, image_ids)


def read_truth(
    questions: Path | str | Mapping[str, Any], annotations: Path | str | Mapping[str, Any]
) -> VqaGroundTruth:
    """Read the ground truth once, for several results.

    Args:
        questions: VQA v2 questions file, or its content.
        annotations: VQA v2 annotations file, or its content; every question has ten human answers.

    Raises:
        HarnessError: A file is not valid, or a question has no annotation.
    """
    with collector_paused():
        asked, images = read_questions(questions)
        annotated = read_annotations(annotations, asked, images)
        return VqaGroundTruth(asked, images, annotated, name_of(questions, "questions"))


class VqaGroundTruth:
    """Questions with their human answers, as `read_truth` gives them.

    Attributes:
        question_ids: int64 [Q], sorted.
        image_ids: int64 [Q], the image of each question.
    """

    def __init__(
        self, question_ids: NDArray[np.int64], image_ids: NDArray[np.int64], annotated: Annotations, name: str
    ) -> None:
        self.question_ids, self.image_ids, self._name = question_ids, image_ids, name
        order = _places(annotated.ids, question_ids)
        self._people = HumanAnswers(annotated.people[order], list(annotated.texts))
        self._kinds = (
            (annotated.answer_types, annotated.answer_type[order]),
            (annotated.question_types, annotated.question_type[order]),
        )

    def evaluate(
        self, results: Path | str | Sequence[Mapping[str, Any]], image_ids: Sequence[int] | None = None
    ) -> VqaResult:
        """Score answers; see the function `evaluate`.

        Args:
            results: Results file, or its content: one answer for every question that is scored.
            image_ids: Score only these images' questions; None means all.

        Raises:
            HarnessError: The results are not valid, a question has no answer, or an answer has no question.
        """
        with collector_paused():
            answered, answers = read_answers(results, self.question_ids)
        answer_of = _places(answered, self.question_ids)
        kept = self._of_images(image_ids)
        missing = kept[answer_of[kept] < 0]
        if len(missing):
            raise HarnessError(
                f"{name_of(results, 'results')}: {len(missing)} of {len(kept)} questions have no answer; the first is "
                f"question {self.question_ids[missing[0]]}"
            )
        numbers, image = np.unique(self.image_ids[kept], return_inverse=True)
        texts, by_text = sorted_ids([str(number) for number in numbers.tolist()])
        place = np.empty(len(texts), np.int32)
        place[by_text] = np.arange(len(texts), dtype=np.int32)
        answers_type, questions_type = (_occurring(names, codes[kept]) for names, codes in self._kinds)
        score = self._people.accuracies(kept, [answers[n] for n in answer_of[kept].tolist()])
        return VqaResult(texts, self.question_ids[kept], place[image], score, *answers_type, *questions_type)

    def _of_images(self, image_ids: Sequence[int] | None) -> NDArray[np.intp]:
        """Places of the questions about some images."""
        if image_ids is None:
            return np.arange(len(self.question_ids))
        wanted = np.unique(np.asarray(image_ids, dtype=np.int64))
        unknown = np.setdiff1d(wanted, self.image_ids)
        if len(unknown):
            raise HarnessError(f"image_ids: {unknown[0]} has no question in {self._name}")
        return np.flatnonzero(np.isin(self.image_ids, wanted))


def _places(ids: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.intp]:
    """Where each wanted id stands among the ids, which are all different; -1 where it does not."""
    if not len(ids):
        return np.full(len(wanted), -1, np.intp)
    order = np.argsort(ids, kind="stable")
    place = order[np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)]
    return np.where(ids[place] == wanted, place, -1)


def _occurring(names: list[str], codes: NDArray[np.int32]) -> tuple[NDArray[np.str_], NDArray[np.int32]]:
    """The names that occur, sorted, and the index among them of each code."""
    occurs = np.bincount(codes, minlength=len(names)) > 0
    present, index = np.unique(np.array(names, dtype=np.str_)[occurs], return_inverse=True)
    place = np.zeros(len(names), np.int32)
    place[occurs] = index
    return present, place[codes]


class VqaResult(SummedResult):
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
        weights: Weights | None = None,
    ) -> dict[str, float]:
        # bincount sums in float64, which is exact for whole numbers below 2**53
        per_question = None if weights is None else weights[self.image]
        counts = np.bincount(kind, per_question, len(names))
        sums = np.bincount(kind, self.score if per_question is None else self.score * per_question, len(names))
        return {str(n): float(v) for n, v in zip(names, scale * ratio(sums, _WHOLE * counts), strict=True)}

    def reduce(self, weights: Weights | None = None) -> dict[str, float]:
        """Accuracy over all questions and over each answer type (``yes/no`` becomes ``yes_no``), as fractions.

        Args:
            weights: int64 [N], how often each image, with all its questions, counts; None means once.
        """
        w = np.ones(len(self.ids), np.int64) if weights is None else checked_weights(weights, len(self.ids))
        per_type = self._by_type(self.answer_types, self.answer_type, 1.0, w)
        return {"accuracy": float(self.reduce_main(w[None])[0])} | {
            name.replace("/", "_").replace(" ", "_"): value for name, value in per_type.items()
        }

    def by_image(self) -> NDArray[np.float64]:
        """Thirtieths that each image's questions got, and could get: float64 [N, 2]."""
        score, questions = (np.bincount(self.image, each, len(self.ids)) for each in (self.score, None))
        return np.stack([score, _WHOLE * questions], axis=1, dtype=np.float64)

    def number_of(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Accuracy over all questions, a fraction."""
        return ratio(sums[:, 0], sums[:, 1])

    def reduce_by(self, kind: str, weights: Weights) -> tuple[list[str], NDArray[np.float64]]:
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

    def ground_truth(self) -> dict[str, NDArray[Any]]:
        """The questions, their images and their types."""
        return {name: getattr(self, name) for name in self._ARRAYS if name != "score"}

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
            require((columns[-2][:-1] < columns[-2][1:]).all(), names, "are not sorted and unique")
        require((questions[:-1] < questions[1:]).all(), "question_ids", "are not sorted and unique")
        asked = np.bincount(columns[2], minlength=len(ids)) > 0
        require(asked.all(), "image", "some image has no question")
        require(np.isin(columns[3], _POSSIBLE).all(), "score", "is none that ten human answers give")
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
