import copy
import json
from pathlib import Path

import numpy as np
import pytest

from harness.cards import DatasetCard
from harness.data.vqa import VqaV2, tokenize
from harness.errors import HarnessError
from harness.evaluation.vqa_text import answer_accuracy

# question id, image id, question, most common answer, the ten answers
TRAIN = [
    (30, 9, "What color is the dog?", "brown", ["brown"] * 10),
    (10, 4, "Is the dog's bowl red?", "yes", ["yes"] * 8 + ["no"] * 2),
    (11, 4, "How many dogs?", "2", ["two"] * 4 + ["2"] * 6),
    (40, 9, "What is on the table?", "knife, fork", ["knife, fork"] * 10),
    (31, 9, "Is the bowl red?", "yes", ["yes"] * 10),
    (41, 9, "What is left?", "Fork", ["Fork"] * 10),
    (42, 9, "What is left now?", "fork", ["fork"] * 10),
    (43, 9, "And what now?", "fork", ["fork"] * 10),
]
VAL = [(7, 1, "Is it red?", "no", ["no"] * 7 + ["yes"] * 3)]


def documents(rows: list) -> tuple[dict, dict]:
    questions = [{"question_id": q, "image_id": i, "question": text} for q, i, text, _, _ in rows]
    annotations = [
        {
            "question_id": q,
            "image_id": i,
            "multiple_choice_answer": best,
            "answers": [{"answer": a, "answer_id": n} for n, a in enumerate(answers, 1)],
        }
        for q, i, _, best, answers in rows
    ]
    return {"questions": questions}, {"annotations": annotations[::-1]}


@pytest.fixture
def card(tmp_path: Path, card_for, write_image) -> DatasetCard:
    splits = {}
    for split, rows in (("train", TRAIN), ("val", VAL)):
        for name, document in zip(("questions", "annotations"), documents(rows), strict=True):
            (tmp_path / f"{split}_{name}.json").write_text(json.dumps(document))
        splits[split] = {
            "images": split,
            "image_prefix": f"COCO_{split}2014_",
            "image_suffix": ".png",
            "questions": f"{split}_questions.json",
            "annotations": f"{split}_annotations.json",
        }
        for image in {row[1] for row in rows}:
            write_image(tmp_path / split / f"COCO_{split}2014_{image:012d}.png", seed=image)
    return card_for("vqa", splits, answers=3)


def test_a_sample_is_an_image_with_all_its_questions_in_the_order_of_their_ids(card: DatasetCard) -> None:
    data = VqaV2(card, "train")
    assert data.ids == ["4", "9"]
    first, second = data[0], data[1]
    assert first.question_ids.tolist() == [10, 11]
    assert first.questions == ("Is the dog's bowl red?", "How many dogs?")
    assert first.answers == (("yes",) * 8 + ("no",) * 2, ("two",) * 4 + ("2",) * 6)
    assert second.question_ids.tolist() == [30, 31, 40, 41, 42, 43]
    assert first.image.shape == (6, 8, 3)
    assert [path.name for path in data.ground_truth_files()] == ["train_questions.json", "train_annotations.json"]


def test_the_answers_are_counted_by_normal_form_and_spelt_as_people_spelt_them(card: DatasetCard) -> None:
    # fork 3 (two spellings), yes 2, then one each: 2, brown, knife fork -> "2" is first in the alphabet
    assert VqaV2(card, "train").classes == ("fork", "yes", "2")


def test_every_split_has_the_vocabularies_of_the_training_split_whatever_the_limit(card: DatasetCard) -> None:
    train, limited, val = VqaV2(card, "train"), VqaV2(card, "train", 1), VqaV2(card, "val")
    assert limited.ids == ["4"]
    assert train.classes == limited.classes == val.classes
    assert train.question_vocabulary == ("bowl", "is", "left", "now", "red", "the", "what")
    assert val.question_vocabulary == train.question_vocabulary


def test_another_splits_vocabularies_do_not_need_the_training_images(tmp_path: Path, card: DatasetCard) -> None:
    for path in (tmp_path / "train").iterdir():
        path.unlink()
    assert VqaV2(card, "val").classes == ("fork", "yes", "2")


def test_soft_targets_are_the_official_accuracy_of_every_class(card: DatasetCard) -> None:
    data = VqaV2(card.model_copy(update={"answers": 100}), "train")
    assert set(data.classes) == {"fork", "yes", "2", "brown", "knife, fork"}
    for answers in (
        ["yes"] * 8 + ["no"] * 2,
        ["two"] * 4 + ["2"] * 6,
        ["knife, fork"] * 10,
        ["knife fork"] * 9 + ["the fork"],
        ["Fork"] * 10,
        ["cat"] * 10,
        ["yes", "fork", "brown", "2", "knife, fork"] * 2,
    ):
        targets = data.soft_targets(answers)
        assert targets.dtype == np.float32
        expected = [answer_accuracy(text, answers) for text in data.classes]
        assert targets.tolist() == np.array(expected, np.float32).tolist()
    assert data.soft_targets(["knife, fork"] * 10).max() == 1  # raw texts are compared when all ten agree
    assert data.soft_targets(["yes"] * 2 + ["no"] * 8)[data.classes.index("yes")] == pytest.approx(0.6)


def test_words_and_numbers_are_tokens_and_punctuation_is_not() -> None:
    assert tokenize("Isn't the DOG\N{RIGHT SINGLE QUOTATION MARK}s 2nd bowl, (red)? Größe 10.5!") == [
        *("isn't", "the", "dog's", "2nd", "bowl", "red", "größe", "10", "5")
    ]
    assert tokenize("?! ") == []


def test_a_missing_image_is_named_when_the_split_is_opened(tmp_path: Path, card: DatasetCard) -> None:
    (tmp_path / "train/COCO_train2014_000000000009.png").unlink()
    with pytest.raises(HarnessError, match=r"train_questions\.json: image .*2014_000000000009\.png is missing"):
        VqaV2(card, "train")
    assert VqaV2(card, "train", limit=1).ids == ["4"]


def broken(which: str, change) -> tuple[str, dict]:
    pair = copy.deepcopy(dict(zip(("questions", "annotations"), documents(TRAIN), strict=True)))
    change(pair[which][which])
    return which, pair[which]


@pytest.mark.parametrize(
    ("which", "change", "message"),
    [
        ("questions", lambda q: q.clear(), r"questions\.json: questions: the list is empty"),
        ("questions", lambda q: q.append(q[0]), r"questions\.json: questions\[8\]\.question_id: 30 appears twice"),
        ("questions", lambda q: q[1].pop("image_id"), r"questions\.json: questions\[1\]\.image_id: this key is req"),
        ("questions", lambda q: q[1].update(image_id=10**12), r"questions\[1\]\.image_id: 1000000000000 is not an im"),
        ("questions", lambda q: q[1].update(question=None), r"questions\[1\]\.question: 'None' is not text"),
        ("annotations", lambda a: a.append(a[0]), r"annotations\[8\]\.question_id: 43 appears twice"),
        ("annotations", lambda a: a[0].update(question_id=99), r"annotations\[0\]\.question_id: 99 is not a question"),
        ("annotations", lambda a: a[0].update(image_id=4), r"annotations\[0\]\.image_id: 4 is not the image of quest"),
        ("annotations", lambda a: a.pop(), r"annotations: there is none for question 30"),
        ("annotations", lambda a: a[0]["answers"].pop(), r"annotations\[0\]\.answers: 9 answers, but exactly 10"),
        ("annotations", lambda a: a[0]["answers"].append({}), r"annotations\[0\]\.answers: 11 answers"),
        ("annotations", lambda a: a[0]["answers"][3].clear(), r"annotations\[0\]\.answers\[3\]: is not a mapping with"),
        ("annotations", lambda a: a[0].update(answers="yes"), r"annotations\[0\]\.answers: 'yes' is not a list"),
        ("annotations", lambda a: a[0].pop("multiple_choice_answer"), r"multiple_choice_answer: this key is required"),
    ],
)
def test_a_broken_entry_is_refused_with_file_place_and_value(tmp_path: Path, card, which, change, message) -> None:
    _, document = broken(which, change)
    (tmp_path / f"train_{which}.json").write_text(json.dumps(document))
    with pytest.raises(HarnessError, match=message) as caught:
        VqaV2(card, "train")
    assert f"train_{which}.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("which", ["questions", "annotations"])
def test_broken_json_is_named(tmp_path: Path, card: DatasetCard, which: str) -> None:
    (tmp_path / f"train_{which}.json").write_text('{"questions": [')
    with pytest.raises(HarnessError, match=rf"train_{which}\.json: not valid JSON"):
        VqaV2(card, "train")
