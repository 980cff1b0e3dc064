"""Checks of VQA v2's layout: questions JSON, annotations JSON and a folder of images named by number."""

from __future__ import annotations

from pathlib import Path

from harness.cards import DatasetCard
from harness.data.checking.findings import Findings
from harness.data.checking.image_files import ImageFiles
from harness.data.checking.plans import SplitPlan, existing, mappings, read_document

HUMAN_ANSWERS = 10  # the official accuracy is defined for exactly ten


def plan_vqa(card: DatasetCard, split: str, found: Findings) -> SplitPlan:
    """Questions, their images and their answers."""
    files = ImageFiles(card, split, found)
    plan = SplitPlan(files)
    questions = existing(card, split, "questions", found)
    annotations = existing(card, split, "annotations", found)
    image_of = _questions(questions, split, found) if questions else {}
    if files.there:
        _images(card, split, plan, files, image_of, found)
    if annotations and questions:
        _answers(annotations, split, image_of, questions.name, found)
    plan.size = len(image_of)
    plan.counts = {"images": len(plan.names), "questions": len(image_of)}
    return plan


def _questions(path: Path, split: str, found: Findings) -> dict[int, int]:
    """Image of each question."""
    image_of: dict[int, int] = {}
    for number, entry in mappings(read_document(path, split, found) or {}, "questions", path, split, found):
        question, image = entry.get("question_id"), entry.get("image_id")
        if type(question) is not int or type(image) is not int or not 0 <= image < 10**12:
            message = "has no whole-number question_id and image_id of up to 12 digits; correct the entry"
            found.add("entry-invalid", split, path, f"questions[{number}]", message)
        elif question in image_of:
            message = f"questions[{number}]: an earlier question has this id; remove one"
            found.add("duplicate-id", split, path, question, message)
        else:
            image_of[question] = image
            if not isinstance(entry.get("question"), str):
                found.add("entry-invalid", split, path, question, f"questions[{number}] has no text; add it")
    return image_of


def _images(
    card: DatasetCard, split: str, plan: SplitPlan, files: ImageFiles, image_of: dict[int, int], found: Findings
) -> None:
    entry = card.splits[split]  # type: ignore[index]
    first: dict[int, int] = {}
    for question, image in image_of.items():
        first.setdefault(image, question)
    for image in sorted(first):
        name = f"{entry.image_prefix}{image:012d}{entry.image_suffix}"
        if files.has(name):
            plan.names.append(name)
            plan.ids.append(str(image))
        else:
            message = f"question {first[image]} is about this image, which does not exist; complete the data set"
            found.add("image-missing", split, files.path(name), image, message)
    # The folder may be shared with other years' images; only files that are named like this data set's are its own.
    prefixes = tuple(other.image_prefix for other in card.splits.values())
    plan.unlisted = {
        name for name in files.unlisted() if name.startswith(prefixes) and name.endswith(entry.image_suffix)
    }


def _answers(path: Path, split: str, image_of: dict[int, int], source: str, found: Findings) -> None:
    answered: set[int] = set()
    for number, entry in mappings(read_document(path, split, found) or {}, "annotations", path, split, found):
        question, place = entry.get("question_id"), f"annotations[{number}]"
        if type(question) is not int or question not in image_of:
            message = f"{place} is about question {question!r:.60}, which {source} does not have; remove it"
            found.add("annotation-orphaned", split, path, question, message)
            continue
        if question in answered:
            message = f"{place}: an earlier annotation is about this question, too; remove one"
            found.add("duplicate-id", split, path, question, message)
        answered.add(question)
        if entry.get("image_id") != image_of[question]:
            message = (
                f"{place}: image_id {entry.get('image_id')!r:.60} differs from the question's {image_of[question]}"
            )
            found.add("entry-invalid", split, path, question, f"{message}; correct it")
        if not isinstance(entry.get("multiple_choice_answer"), str):
            message = f"{place} has no multiple_choice_answer text; add it"
            found.add("entry-invalid", split, path, question, message)
        answers = entry.get("answers")
        if not isinstance(answers, list) or len(answers) != HUMAN_ANSWERS:
            count = len(answers) if isinstance(answers, list) else "no"
            message = f"{place} has {count} answers, and the accuracy is defined for {HUMAN_ANSWERS}; complete them"
            found.add("answers-not-ten", split, path, question, message)
        elif not all(isinstance(answer, dict) and isinstance(answer.get("answer"), str) for answer in answers):
            message = f"{place}: not every one of the answers has an 'answer' text; correct them"
            found.add("entry-invalid", split, path, question, message)
    for question in sorted(image_of.keys() - answered):
        message = f"question {question} has no annotation; complete the file or remove the question"
        found.add("annotation-missing", split, path, question, message)
