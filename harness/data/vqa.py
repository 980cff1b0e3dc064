"""VQA v2's layout: questions JSON, annotations JSON and a folder of COCO images."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.cards import DatasetCard
from harness.data.annotations import entries, field, read_json, unique_ids
from harness.data.columns import Texts, columns, file_key
from harness.data.samples import Adapter, Image, VqaSample
from harness.data.stores import open_images
from harness.errors import HarnessError
from harness.evaluation.vqa_text import answer_accuracy, normalize_answer

HUMAN_ANSWERS = 10  # the official accuracy is defined for exactly ten
MIN_WORD_COUNT = 2
_WORD = re.compile(r"\w+(?:'\w+)?")


def tokenize(text: str) -> list[str]:
    """The words and numbers of a text, in lower case; punctuation is dropped, ``don't`` is one word."""
    return _WORD.findall(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


class VqaV2(Adapter):
    """Images with questions that ten people answered; one sample is an image with all its questions.

    Args:
        card: The data set.
        split: Name of the split.
        limit: Use only the first `limit` images, in the order of their ids, with all their questions.

    Raises:
        HarnessError: A file is missing or not valid.
    """

    task = "vqa"

    def __init__(self, card: DatasetCard, split: str, limit: int | None = None) -> None:
        self.card, self.split = card, split
        self._images = open_images(card, split)
        self._texts = _Texts(card, split)
        self.ids = self._texts.ids[:limit]
        names = (self._image_name(number) for number in self.image_ids)
        self._images.require(names, str(self._texts.questions_file))

    @property
    def image_ids(self) -> NDArray[np.int64]:
        """int64 [N], ascending."""
        return self._texts.images[: len(self.ids)]

    @property
    def question_ids(self) -> NDArray[np.int64]:
        """int64 [Q], of all questions about the images."""
        return self._texts.question_ids[: self._texts.starts[len(self.ids)]]

    def _image_name(self, image_id: int) -> str:
        entry = self.card.splits[self.split]  # type: ignore[index]
        return f"{entry.image_prefix}{image_id:012d}{entry.image_suffix}"

    def __getitem__(self, index: int) -> VqaSample:
        """Decode one image. Raises HarnessError naming the file if it cannot be read."""
        sample = self.unseen(index)
        return replace(sample, image=self._images.read(self._image_name(int(sample.id))))

    def image(self, index: int) -> Image:
        """Decode one image without what is asked about it."""
        return self._images.read(self._image_name(int(self.ids[index])))

    def unseen(self, index: int) -> VqaSample:
        """A sample without pixels (an image of size 0)."""
        index = range(len(self.ids))[index]
        texts = self._texts
        part = slice(*texts.starts[index : index + 2])
        return VqaSample(
            id=self.ids[index],
            image=np.zeros((0, 0, 3), dtype=np.uint8),
            question_ids=texts.question_ids[part].copy(),
            questions=tuple(texts.questions[part]),
            answers=tuple(tuple(texts.distinct[n] for n in row) for row in texts.answers[part]),
        )

    @property
    def examples(self) -> int:
        """Number of questions of the whole split."""
        return len(self._texts.question_ids)

    def ground_truth_files(self) -> Sequence[Path]:
        """The questions JSON and the annotations JSON."""
        return (self._texts.questions_file, self._texts.annotations_file)

    @property
    def classes(self) -> tuple[str, ...]:
        """The `card.answers` most frequent answers of the whole training split, most frequent first.

        What is counted is the official normal form of the most common human answer; ties are in alphabetical order.
        A class is spelt as its most frequent raw spelling, because the official accuracy compares raw texts when all
        ten people agree: a normalised spelling would then never be right.
        """
        return self._vocabularies[0]

    @property
    def question_vocabulary(self) -> tuple[str, ...]:
        """The words that the training questions hold at least twice, sorted."""
        return self._vocabularies[1]

    @cached_property
    def _vocabularies(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        training = self._texts if self.split == "train" else _Texts(self.card, "train")
        return _frequent_answers(training, self.card.answers), _frequent_words(training.questions)

    @cached_property
    def _class_of_form(self) -> dict[str, int]:
        return {normalize_answer(text): number for number, text in enumerate(self.classes)}

    def soft_targets(self, answers: Sequence[str]) -> NDArray[np.float32]:
        """The official accuracy that each class would get as the answer to one question.

        Args:
            answers: The ten human answers.

        Returns:
            float32 [A], in [0, 1].
        """
        targets = np.zeros(len(self.classes), dtype=np.float32)
        # Only a class with a human answer's normal form can score.
        for form in {normalize_answer(text) for text in answers}:
            if (number := self._class_of_form.get(form)) is not None:
                targets[number] = answer_accuracy(self.classes[number], answers)
        return targets


class _Texts:
    """Questions and answers of one split as flat arrays, sorted by image and question id.

    Attributes:
        question_ids: int64 [Q].
        image_ids: int64 [Q], image of each question.
        images: int64 [N], the different images, ascending; `ids` are the same as texts.
        starts: int64 [N + 1], image i has questions ``starts[i]`` to ``starts[i + 1]``.
        questions: The Q texts.
        distinct: Every text that occurs as an answer, once.
        answers: int32 [Q, 10], indices into `distinct`.
        most_common: int32 [Q], the most common human answer, index into `distinct`.
    """

    def __init__(self, card: DatasetCard, split: str) -> None:
        self.questions_file = card.require(card.path(split, "questions"), "the questions file")
        self.annotations_file = card.require(card.path(split, "annotations"), "the annotations file")
        key = file_key(self.questions_file, self.annotations_file, salt="vqa")
        self._columns = columns(key, lambda: _read(self.questions_file, self.annotations_file))

    def __getattr__(self, name: str) -> Any:
        if name in ("ids", "questions", "distinct"):
            return self._columns.texts(name)
        if name in ("question_ids", "image_ids", "images", "starts", "answers", "most_common"):
            return self._columns[name]
        raise AttributeError(name)


def _read(questions_file: Path, annotations_file: Path) -> dict[str, NDArray[Any] | Texts]:
    question_ids, image_ids, questions = _read_questions(questions_file)
    answers, most_common, distinct = _read_answers(annotations_file, questions_file, question_ids, image_ids)
    images, starts = np.unique(image_ids, return_index=True)
    return {
        "question_ids": question_ids,
        "image_ids": image_ids,
        "ids": Texts.of(map(str, images.tolist())),
        "images": images,
        "starts": np.append(starts, len(image_ids)),
        "questions": Texts.of(questions),
        "answers": answers,
        "most_common": most_common,
        "distinct": Texts.of(distinct),
    }


def _read_questions(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str]]:
    items = entries(read_json(path), "questions", path)
    if not items:
        raise HarnessError(f"{path}: questions: the list is empty; is this the right file?")
    ids = unique_ids(items, "question_id", path, "questions")
    texts = [str(field(entry, "question", str, path, f"questions[{n}]")) for n, entry in enumerate(items)]
    images = _image_ids(items, path, "questions")
    order = np.lexsort((ids, images))
    return ids[order], images[order], [texts[number] for number in order]


def _read_answers(
    path: Path, questions_file: Path, question_ids: NDArray[np.int64], image_ids: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32], list[str]]:
    items = entries(read_json(path), "annotations", path)
    ids = unique_ids(items, "question_id", path, "annotations")
    images = _image_ids(items, path, "annotations")
    row_of_question = {int(number): row for row, number in enumerate(question_ids)}
    number_of_text: dict[str, int] = {}
    answers = np.zeros((len(row_of_question), HUMAN_ANSWERS), dtype=np.int32)
    most_common = np.full(len(row_of_question), -1, dtype=np.int32)
    for number, annotation in enumerate(items):
        place, question = f"annotations[{number}]", int(ids[number])
        row = row_of_question.get(question)
        if row is None:
            raise HarnessError(f"{path}: {place}.question_id: {question} is not a question of {questions_file}")
        if images[number] != image_ids[row]:
            raise HarnessError(
                f"{path}: {place}.image_id: {images[number]} is not the image of question {question}, which "
                f"{questions_file} says is {image_ids[row]}"
            )
        texts = _ten_answers(annotation, path, place)
        answers[row] = [number_of_text.setdefault(text, len(number_of_text)) for text in texts]
        text = field(annotation, "multiple_choice_answer", str, path, place)
        most_common[row] = number_of_text.setdefault(text, len(number_of_text))
    if len(missing := np.flatnonzero(most_common < 0)):
        question = int(question_ids[missing[0]])
        raise HarnessError(f"{path}: annotations: there is none for question {question}; complete the file")
    return answers, most_common, list(number_of_text)


def _frequent_answers(training: _Texts, count: int) -> tuple[str, ...]:
    frequencies: Counter[str] = Counter()
    spellings: defaultdict[str, Counter[str]] = defaultdict(Counter)
    numbers, occurrences = np.unique(training.most_common, return_counts=True)
    for number, occurrence in zip(numbers.tolist(), occurrences.tolist(), strict=True):
        text = training.distinct[number]
        frequencies[normalize_answer(text)] += occurrence
        spellings[normalize_answer(text)][text] += occurrence
    ranked = sorted(frequencies, key=lambda form: (-frequencies[form], form))[:count]
    return tuple(min(spellings[form], key=lambda text: (-spellings[form][text], text)) for form in ranked)


def _frequent_words(questions: Sequence[str]) -> tuple[str, ...]:
    counts = Counter(word for text in questions for word in tokenize(text))
    return tuple(sorted(word for word, count in counts.items() if count >= MIN_WORD_COUNT))


def _image_ids(items: list[dict[str, Any]], path: Path, where: str) -> NDArray[np.int64]:
    ids = [field(item, "image_id", int, path, f"{where}[{number}]") for number, item in enumerate(items)]
    for number, value in enumerate(ids):
        if not 0 <= value < 10**12:
            raise HarnessError(f"{path}: {where}[{number}].image_id: {value} is not an image id of up to 12 digits")
    return np.array(ids, dtype=np.int64)


def _ten_answers(annotation: dict[str, Any], path: Path, place: str) -> list[str]:
    answers = field(annotation, "answers", list, path, place)
    if len(answers) != HUMAN_ANSWERS:
        raise HarnessError(f"{path}: {place}.answers: {len(answers)} answers, but exactly {HUMAN_ANSWERS} are needed")
    texts: list[str] = []
    for number, answer in enumerate(answers):
        if not isinstance(answer, dict) or not isinstance(answer.get("answer"), str):
            raise HarnessError(f"{path}: {place}.answers[{number}]: is not a mapping with an 'answer' text")
        texts.append(answer["answer"])
    return texts
