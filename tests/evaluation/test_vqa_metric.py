from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.evaluation import vqa
from harness.evaluation.vqa import VqaResult, answer_accuracy, evaluate, normalize_answer

# An independent restatement of the official rules, as long-winded as they are. Contractions: a sample of the table.
CONTRACTIONS = {
    "dont": "don't", "isnt": "isn't", "couldntve": "couldntve",
    "couldn'tve": "couldn't've", "couldnt've": "couldn't've",
    "oclock": "o'clock", "twas": "'twas", "somebody'd": "somebodyd", "yall'd've": "y'all'd've", "let's": "let's",
    "ow'sat": "ow'sat", "'ow'sat": "'ow's'at", "Im": "I'm", "youre": "you're", "werent": "weren't", "whos": "who's",
}  # fmt: skip
NUMBERS = {w: str(n) for n, w in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven"])} | {
    "none": "0", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip


def restated_normal_form(text: str) -> str:
    after = text
    for mark in [
        ";",
        "/",
        "[",
        "]",
        '"',
        "{",
        "}",
        "(",
        ")",
        "=",
        "+",
        "\\",
        "_",
        "-",
        ">",
        "<",
        "@",
        "`",
        ",",
        "?",
        "!",
    ]:
        if (mark + " " in text or " " + mark in text) or re.search(r"(\d)(\,)(\d)", text) is not None:
            after = after.replace(mark, "")
        else:
            after = after.replace(mark, " ")
    after = re.compile(r"(?!<=\d)(\.)(?!\d)").sub("", after, 32)
    kept = []
    for word in after.lower().split():
        word = NUMBERS.get(word, word)
        if word not in ("a", "an", "the"):
            kept.append(CONTRACTIONS.get(word, word))
    return " ".join(kept)


def restated_accuracy(answer: str, human: list[str]) -> float:
    answer = answer.replace("\n", " ").replace("\t", " ").strip()
    people = [text.replace("\n", " ").replace("\t", " ").strip() for text in human]
    if len(set(people)) > 1:
        answer, people = restated_normal_form(answer), [restated_normal_form(text) for text in people]
    each = []
    for one in range(len(people)):
        others = people[:one] + people[one + 1 :]
        each.append(min(1.0, sum(text == answer for text in others) / 3))
    return sum(each) / len(each)


WORDS = st.sampled_from(
    [
        *CONTRACTIONS,
        *NUMBERS,
        "a",
        "the",
        "The",
        "Yes",
        "no",
        "1,000",
        "2.5",
        "3.",
        ".5",
        "e.g.",
        "red,",
        "-",
        "x-ray",
        "(a)",
    ]
)
TEXTS = st.lists(WORDS, max_size=4).map(" ".join) | st.text("aA1.,;/-?! \t\n'", max_size=12)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(text=TEXTS)
@example("." * 40)  # the official code passes re.UNICODE as the count: 32 periods go
@example("1,000 (red) cars")
def test_the_normal_form_follows_the_official_rules(text: str) -> None:
    assert normalize_answer(text) == restated_normal_form(text.replace("\n", " ").replace("\t", " ").strip())


@pytest.mark.parametrize(
    ("raw", "form"),
    [
        ("The  Dog.", "dog"),
        ("two", "2"),
        ("none", "0"),
        ("Dont", "don't"),
        ("x-ray", "x ray"),
        ("red, blue", "red blue"),
        ("1,000", "1000"),
        ("2.5", "2.5"),
        ("u.s.a.", "usa"),
        ("it's", "it's"),
        ("a", ""),
        ("whats the time?", "what's time"),
        ("Im", "im"),  # "Im" stands in the official table, but words are in lower case when they are looked up
    ],
)
def test_normal_forms_worked_out_by_hand(raw: str, form: str) -> None:
    assert normalize_answer(raw) == form


TEN = st.lists(st.integers(0, 2), min_size=10, max_size=10)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    answer=TEXTS,
    human=st.lists(TEXTS, min_size=3, max_size=3),
    spread=st.lists(st.integers(0, 2), min_size=10, max_size=10),
)
def test_accuracy_follows_the_official_rules(answer: str, human: list[str], spread: list[int]) -> None:
    people = [human[n] for n in spread]
    for given_answer in (answer, *human):
        assert answer_accuracy(given_answer, people) == pytest.approx(
            restated_accuracy(given_answer, people), abs=1e-12
        )


@pytest.mark.parametrize(("matches", "accuracy"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (9, 1), (10, 1)])
def test_leaving_one_person_out_makes_three_matches_worth_nine_tenths(matches: int, accuracy: float) -> None:
    people = ["dog"] * matches + [f"cat{n}" for n in range(10 - matches)]
    assert answer_accuracy("dog", people) == pytest.approx(accuracy)


def test_answers_are_normalised_only_where_people_disagree() -> None:
    assert answer_accuracy("Two", ["two"] * 10) == 0
    assert answer_accuracy("two", ["two"] * 10) == 1
    assert answer_accuracy("2", ["Two."] * 10) == 0
    assert answer_accuracy("Two", ["two"] * 9 + ["2"]) == 1


@pytest.mark.parametrize(
    ("answer", "people", "accuracy"),
    [
        # white space goes first, so these people agree: their text counts as it is, and "Two" is not "two"
        ("Two", ["two"] * 5 + [" two\n"] * 3 + ["\ttwo"] * 2, 0),
        ("two\n", ["two"] * 5 + [" two\n"] * 3 + ["\ttwo"] * 2, 1),
        ("the\tdog", ["the dog"] * 9 + ["the\ndog"], 1),
        # inner double spaces are no line breaks: these people do not agree, and the normal form folds them
        ("The dog", ["the dog"] * 9 + ["the  dog"], 1),
    ],
)
def test_white_space_goes_before_it_is_asked_whether_people_agree(
    answer: str, people: list[str], accuracy: float
) -> None:
    """The official order (vqaEval.py): clean people's answers, clean the given one, compare, then normalise."""
    assert answer_accuracy(answer, people) == restated_accuracy(answer, people) == accuracy


def data(
    seed: int = 0, images: int = 4, questions: int = 11
) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    generator = np.random.default_rng(seed)
    texts = ["yes", "no", "Yes.", "two", "2", "red"]
    image_of = {int(q): int(generator.integers(images)) + 5 for q in generator.permutation(1000)[:questions]}
    annotations = [
        {
            "question_id": question,
            "image_id": image,
            "answer_type": ["yes/no", "number", "other"][int(generator.integers(3))],
            "question_type": ["is the", "how many"][int(generator.integers(2))],
            "answers": [{"answer": texts[int(n)], "answer_id": i} for i, n in enumerate(generator.integers(0, 6, 10))],
        }
        for question, image in image_of.items()
    ]
    asked = [{"question_id": q, "image_id": i, "question": "?"} for q, i in image_of.items()]
    results = [{"question_id": q, "answer": texts[int(generator.integers(6))]} for q in image_of]
    return {"questions": asked}, {"annotations": annotations}, results


def test_numbers_equal_the_means_of_the_restated_accuracies() -> None:
    questions, annotations, results = data()
    result = evaluate(questions, annotations, results)
    answer = {entry["question_id"]: entry["answer"] for entry in results}
    expected: dict[str, list[float]] = {}
    for entry in annotations["annotations"]:
        value = restated_accuracy(answer[entry["question_id"]], [one["answer"] for one in entry["answers"]])
        for key in ("all", entry["answer_type"], entry["question_type"]):
            expected.setdefault(key, []).append(value)
    assert result.accuracy == pytest.approx(100 * np.mean(expected["all"]), abs=1e-12)
    for found in (result.per_answer_type, result.per_question_type):
        assert found == {key: pytest.approx(100 * np.mean(expected[key])) for key in found}
    numbers = result.reduce()
    assert set(numbers) == {"accuracy", "number", "other", "yes_no"}
    assert numbers["yes_no"] == pytest.approx(np.mean(expected["yes/no"]))
    assert result.per_class()["question type: how many"] == pytest.approx(np.mean(expected["how many"]))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 999), weights=st.lists(st.integers(0, 3), min_size=4, max_size=4).filter(any))
def test_weights_equal_repeating_an_image_with_all_its_questions(seed: int, weights: list[int]) -> None:
    questions, annotations, results = data(seed)
    result = evaluate(questions, annotations, results)
    w = np.array(weights[: len(result.ids)])
    fresh, asked, answered, given_answers = 0, [], [], []
    times = dict(zip(result.ids, w, strict=True))
    for q, a, r in zip(questions["questions"], annotations["annotations"], results, strict=True):
        for copy in range(times[str(q["image_id"])]):
            fresh += 1
            key = {"question_id": fresh, "image_id": q["image_id"] + 100 * copy}
            asked.append({**q, **key})
            answered.append({**a, **key})
            given_answers.append({**r, "question_id": fresh})
    if not asked:
        assert np.isnan(result.reduce(w)["accuracy"])
        return
    copied = evaluate({"questions": asked}, {"annotations": answered}, given_answers).reduce()
    assert {k: v for k, v in result.reduce(w).items() if not np.isnan(v)} == copied
    assert result.reduce_main(w[None])[0] == copied["accuracy"]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 999), cut=st.integers(1, 3), overlap=st.integers(0, 2))
def test_merged_shards_equal_the_whole_even_when_they_overlap(seed: int, cut: int, overlap: int) -> None:
    questions, annotations, results = data(seed, questions=30)
    whole = evaluate(questions, annotations, results)
    images = [int(i) for i in whole.ids]
    parts = [part for part in (images[:cut], images[max(0, cut - overlap) :]) if part]
    merged = VqaResult.merge([evaluate(questions, annotations, results, part) for part in parts])
    assert {k: v.tolist() for k, v in merged.statistics.items()} == {k: v.tolist() for k, v in whole.statistics.items()}
    assert VqaResult.from_statistics(merged.statistics).per_class() == whole.per_class()


def written(folder: Path, contents: Any) -> list[Path]:
    paths = [folder / f"{name}.json" for name in ("questions", "annotations", "results")]
    for path, content in zip(paths, contents, strict=True):
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return paths


def restated(questions: Any, annotations: Any, results: Any) -> float:
    answer = {entry["question_id"]: entry["answer"] for entry in results}
    each = [
        restated_accuracy(answer[entry["question_id"]], [one["answer"] for one in entry["answers"]])
        for entry in annotations["annotations"]
    ]
    return 100 * float(np.mean(each))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    texts=st.lists(TEXTS | st.text(max_size=5), min_size=3, max_size=3),
    spread=st.lists(st.integers(0, 2), min_size=33, max_size=33),
)
def test_files_loaded_objects_and_the_restated_rules_give_the_same(
    texts: list[str], spread: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    questions, annotations, results = data(questions=3)
    for n, entry in enumerate(annotations["annotations"]):
        for i, one in enumerate(entry["answers"]):
            one["answer"] = texts[spread[10 * n + i]]
    for n, one in enumerate(results):
        one["answer"] = texts[spread[30 + n]]
    contents = (questions, annotations, results[::-1])
    found = evaluate(*written(tmp_path_factory.mktemp("vqa"), contents))
    assert {k: v.tolist() for k, v in found.statistics.items()} == {
        k: v.tolist() for k, v in evaluate(*contents).statistics.items()
    }
    assert found.accuracy == pytest.approx(restated(*contents), abs=1e-9)


def test_an_unusual_file_that_is_valid_gives_the_same(tmp_path: Path) -> None:
    questions, annotations, results = data()
    expected = evaluate(questions, annotations, results).per_class()
    for entry in annotations["annotations"][::2]:
        del entry["image_id"]  # the questions file has it
    assert evaluate(*written(tmp_path, (questions, annotations, results))).per_class() == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda q, a, r: r[3].update(answer=7), r"results.json: \[3\].answer: 7 is not text"),
        (lambda q, a, r: r[3].update(question_id=1.0), r"results.json: \[3\].question_id: 1.0 is not a whole number"),
        (lambda q, a, r: r.append(r[0]), r"results.json: \[11\].question_id: \d+ appears twice; answer each"),
        (lambda q, a, r: r.append({"question_id": 2**63, "answer": "x"}), r"is not a whole number below 2\*\*63"),
        (lambda q, a, r: a["annotations"][2]["answers"].pop(), r"annotations\[2\].answers: a list of 10 human answers"),
        (lambda q, a, r: a["annotations"][2]["answers"][9].update(answer=None), r"\[2\].answers: every one must have"),
        (lambda q, a, r: a["annotations"][2].update(image_id=None), r"annotations\[2\].image_id: None is not a whole"),
        (lambda q, a, r: a["annotations"][2].update(image_id=77), "the two files belong to different splits"),
        (lambda q, a, r: a["annotations"][2].update(question_type=3), r"annotations\[2\].question_type: 3 is not text"),
        (lambda q, a, r: a["annotations"].append(a["annotations"][0]), r"annotations\[11\].question_id: \d+ appears"),
        (lambda q, a, r: a["annotations"].pop(), "has no annotation"),
        (
            lambda q, a, r: q["questions"][1].update(image_id=True),
            r"questions\[1\].image_id: True is not a whole number",
        ),
        (lambda q, a, r: q["questions"].clear(), "the list is empty"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence_that_names_the_place(tmp_path: Path, change: Any, words: str) -> None:
    contents = data()
    change(*contents)
    with pytest.raises(HarnessError, match=words):
        evaluate(*written(tmp_path, contents))


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_a_file_that_is_cut_short_is_refused_by_its_name(tmp_path: Path, cut: int) -> None:
    contents: list[Any] = list(data())
    contents[cut] = json.dumps(contents[cut])[:-4]
    paths = written(tmp_path, contents)
    with pytest.raises(HarnessError, match=f"^{re.escape(str(paths[cut]))}: not valid JSON"):
        evaluate(*paths)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda q, a, r: r.pop(), "1 of 11 questions have no answer; the first is question"),
        (lambda q, a, r: r.append(r[0]), r"results: \[11\].question_id: \d+ appears twice"),
        (lambda q, a, r: r.append({"question_id": -4, "answer": "x"}), "question_id: -4 is not a question"),
        (lambda q, a, r: r[3].update(answer=7), r"results: \[3\].answer: 7 is not text"),
        (lambda q, a, r: r[3].pop("answer"), r"results: \[3\].answer: this key is required"),
        (lambda q, a, r: a["annotations"].pop(), "has no annotation"),
        (
            lambda q, a, r: a["annotations"].append(a["annotations"][0]),
            r"annotations\[11\].question_id: \d+ appears twice",
        ),
        (lambda q, a, r: a["annotations"][2]["answers"].pop(), r"annotations\[2\].answers: a list of 10 human answers"),
        (
            lambda q, a, r: a["annotations"][2].update(answer_type=None),
            r"annotations\[2\].answer_type: None is not text",
        ),
        (lambda q, a, r: a["annotations"][2].update(image_id=77), "the two files belong to different splits"),
        (lambda q, a, r: a["annotations"][2].update(question_id=-1), "-1 is not in the questions file"),
        (lambda q, a, r: q["questions"].append(q["questions"][0]), r"questions\[11\].question_id: \d+ appears twice"),
        (
            lambda q, a, r: q["questions"][1].update(question_id=True),
            r"questions\[1\].question_id: True is not a whole number",
        ),
        (lambda q, a, r: q.clear(), "questions: questions: a list of entries is required"),
        (lambda q, a, r: q["questions"].clear(), "the list is empty"),
    ],
)
def test_bad_input_is_refused_in_one_sentence_that_names_the_place(change: Any, words: str) -> None:
    questions, annotations, results = data()
    change(questions, annotations, results)
    with pytest.raises(HarnessError, match=words):
        evaluate(questions, annotations, results)


def test_an_image_without_questions_is_refused() -> None:
    with pytest.raises(HarnessError, match="image_ids: 99 has no question"):
        evaluate(*data(), image_ids=[99])


@pytest.mark.parametrize(
    "name", ["ids", "question_ids", "image", "score", "answer_types", "answer_type", "question_type"]
)
def test_damaged_statistics_are_refused(name: str) -> None:
    arrays = evaluate(*data()).statistics
    with pytest.raises(HarnessError, match=f"{name}: this array is required"):
        VqaResult.from_statistics({k: v for k, v in arrays.items() if k != name})
    with pytest.raises(HarnessError, match=f"statistics: {name}"):
        VqaResult.from_statistics({**arrays, name: np.array([0.5])})
    if name in ("image", "score", "question_type"):
        with pytest.raises(HarnessError, match=f"{name}: 31 is not between"):
            VqaResult.from_statistics({**arrays, name: np.full(11, 31, np.int32)})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"question_ids": np.zeros(11, np.int64)}, "question_ids: are not sorted and unique"),
        ({"image": np.zeros(11, np.int32)}, "image: some image has no question"),
        ({"score": np.full(11, 29, np.int32)}, "score: is none that ten human answers give"),
        ({"answer_types": np.array(["other", "other", "yes/no"])}, "answer_types: are not sorted and unique"),
    ],
)
def test_statistics_that_no_scoring_gives_are_refused(changes: dict[str, Any], words: str) -> None:
    arrays = evaluate(*data()).statistics
    with pytest.raises(HarnessError, match=words):
        VqaResult.from_statistics({**arrays, **changes})


def test_the_scores_that_are_allowed_are_those_of_ten_human_answers() -> None:
    found = {round(30 * answer_accuracy("a", ["a"] * n + ["b"] * (10 - n))) for n in range(11)}
    assert found == set(vqa._POSSIBLE)
