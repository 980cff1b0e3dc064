"""The work to be timed: each function runs in a process of its own and returns the seconds and what it found."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

Report = dict[str, Any]


def timed(call: Callable[[], Any]) -> tuple[Report, Any]:
    cpu, wall = process_time(), perf_counter()
    result = call()
    return {"cpu": process_time() - cpu, "wall": perf_counter() - wall}, result


@contextlib.contextmanager
def silent() -> Any:
    """Nothing on standard output, not even from C++ and Rust."""
    kept, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    with contextlib.redirect_stdout(io.StringIO()):
        yield
    os.dup2(kept, 1)


def coco_like(folder: Path, coco_module: str, evaluator_module: str, evaluator: str) -> Report:
    """A tool with pycocotools' interface: all, and from loaded data on."""
    coco, evaluate = import_module(coco_module).COCO, getattr(import_module(evaluator_module), evaluator)
    with silent():

        def load() -> Any:
            truth = coco(str(folder / "truth.json"))
            return truth, truth.loadRes(str(folder / "results.json"))

        def score() -> Any:
            one = evaluate(*loaded, "bbox")
            one.evaluate()
            one.accumulate()
            return one

        reading, loaded = timed(load)
        scoring, one = timed(score)
        one.summarize()
    both = {key: reading[key] + scoring[key] for key in reading}
    return {"all": both, "matching": scoring, "stats": np.asarray(one.stats, float)[:12].tolist()}


def ours(folder: Path, results: str = "results.json") -> Report:
    from harness.evaluation import detection
    from harness.evaluation.detection_predictions import read_detections
    from harness.evaluation.detection_truth import read_truth

    def score() -> Any:
        result = detection.evaluate(folder / "truth.json", folder / results)
        return result, result.stats

    first, _ = timed(score)  # with loading machine code, or compiling it
    both, (_, stats) = timed(score)
    truth = read_truth(folder / "truth.json")
    found = read_detections(folder / results, truth.sizes, truth.category_ids.tolist())
    scoring, _ = timed(lambda: detection._match(truth, found, truth.image_ids).stats)
    return {"all": both, "matching": scoring, "stats": stats.tolist(), "first": first}


def bootstrap(folder: Path, draws: int) -> Report:
    from harness.evaluation import detection
    from harness.evaluation.resampling import draw_weights

    entries = [detection.evaluate(folder / "truth.json", folder / name) for name in ("results.json", "other.json")]
    entries[0].reduce_many(draw_weights(len(entries[0].ids), 1, 0))

    def paired() -> Any:
        weights = draw_weights(len(entries[0].ids), draws, 0)
        return entries[0].reduce_many(weights) - entries[1].reduce_many(weights)

    return {"all": timed(paired)[0]}


def permutation(folder: Path, draws: int) -> Report:
    """Interval and p-value of the difference in AP, as `harness compare` makes them."""
    from harness.evaluation import detection
    from harness.evaluation.permutation import permutation_p_value
    from harness.evaluation.resampling import paired_difference

    a, b = ([detection.evaluate(folder / "truth.json", folder / name)] for name in ("results.json", "other.json"))
    permutation_p_value(a, b, 1)  # with loading machine code
    interval, _ = timed(lambda: paired_difference(a, b, draws))
    test, _ = timed(lambda: permutation_p_value(a, b, draws))
    return {"all": {key: interval[key] + test[key] for key in test}, "interval": interval, "test": test}


def vqa_from_files(folder: Path, way: str) -> Report:
    """Read three files and score them."""
    from harness.evaluation import vqa

    paths = [folder / f"{name}.json" for name in ("questions", "annotations", "results")]
    if way == "ours":
        seconds, accuracy = timed(lambda: vqa.evaluate(*paths).accuracy)
    else:

        def official() -> float:
            questions, annotations, results = (json.loads(path.read_text()) for path in paths)
            return official_evaluate(official_index(questions, annotations), results)

        seconds, accuracy = timed(official)
    return {"all": seconds, "accuracy": accuracy}


def hotcoco_compare(folder: Path, draws: int) -> Report:
    hotcoco = import_module("hotcoco")
    with silent():
        truth = hotcoco.COCO(str(folder / "truth.json"))
        entries = [
            hotcoco.COCOeval(truth, truth.loadRes(str(folder / name)), "bbox")
            for name in ("results.json", "other.json")
        ]
        for entry in entries:
            entry.evaluate()
        seconds, _ = timed(lambda: hotcoco.compare(entries[0], entries[1], n_bootstrap=draws, seed=0))
    return {"all": seconds}


def segmentation(maps: Any, way: str) -> Report:
    """Count pairs of ids, as the official script does where its C extension is not built, by bincount, or our way."""
    from harness.evaluation.label_map import CITYSCAPES
    from harness.evaluation.segmentation import _Counter
    from harness.evaluation.segmentation_kernels import count_pairs

    counter = _Counter(CITYSCAPES)

    def bincount(truth: Any, prediction: Any) -> Any:
        return np.bincount(truth.ravel().astype(np.int64) * 256 + prediction.ravel(), minlength=1 << 16)

    def unique(truth: Any, prediction: Any) -> Any:
        values, counts = np.unique(truth.astype(np.int32) * 256 + prediction, return_counts=True)
        table = np.zeros(1 << 16, np.int64)
        table[values] = counts
        return table

    def torchmetrics(truth: Any, prediction: Any) -> Any:
        torch, functional = import_module("torch"), import_module("torchmetrics.functional.classification")
        return functional.multiclass_confusion_matrix(
            torch.from_numpy(prediction), torch.from_numpy(truth), 256, validate_args=False
        ).numpy()

    ways = {
        "bincount": bincount,
        "unique": unique,
        "torchmetrics": torchmetrics,
        "pairs": count_pairs,
        "row": lambda truth, prediction: counter.count(truth, prediction, None, ""),
    }
    ways[way](maps[0][0], maps[1][0])
    seconds, tables = timed(lambda: [ways[way](*pair) for pair in zip(*maps, strict=True)])
    if way != "row":
        expected = bincount(maps[0][-1], maps[1][-1])
        assert np.array_equal(np.asarray(tables[-1]).ravel(), expected)
    return {"all": seconds}


def segmentation_files(folder: Path, count: int) -> Report:
    """Score the first `count` pairs of PNGs."""
    from harness.evaluation import segmentation as ours

    frames = [f"city_{n:06d}_000019" for n in range(count)]
    seconds, result = timed(lambda: ours.evaluate(folder / "truth", folder / "prediction", ids=frames))
    assert len(result.ids) == count
    return {"all": seconds}


_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA, _PERIOD = re.compile(r"(\d)(\,)(\d)"), re.compile(r"(?!<=\d)(\.)(?!\d)")


def official_index(questions: Any, annotations: Any) -> tuple[dict[int, Any], dict[int, Any]]:
    """What the official `VQA` class makes of a ground truth: annotations by question and by image, questions by id."""
    of_image: dict[int, list[Any]] = {entry["image_id"]: [] for entry in annotations["annotations"]}
    of_question = {}
    for entry in annotations["annotations"]:
        of_image[entry["image_id"]].append(entry)
        of_question[entry["question_id"]] = entry
    return of_question, {entry["question_id"]: entry for entry in questions["questions"]}


def official_evaluate(index: tuple[dict[int, Any], dict[int, Any]], results: Any) -> float:
    """A plain restatement of the official evaluation, question by question, with its ways of comparing entries."""
    from harness.evaluation.vqa_text import _ARTICLES, _CONTRACTIONS, _NUMBERS

    def punctuation(text: str) -> str:
        out = text
        for mark in _MARKS:
            if (mark + " " in text or " " + mark in text) or re.search(_COMMA, text) is not None:
                out = out.replace(mark, "")
            else:
                out = out.replace(mark, " ")
        return _PERIOD.sub("", out, 32)

    def words(text: str) -> str:
        kept = [_NUMBERS.get(word, word) for word in text.lower().split()]
        return " ".join(_CONTRACTIONS.get(word, word) for word in kept if word not in _ARTICLES)

    def clean(text: str) -> str:
        return text.replace("\n", " ").replace("\t", " ").strip()

    answer = {entry["question_id"]: entry["answer"] for entry in results}
    assert set(answer) == set(index[0])
    total: list[float] = []
    by_kind: dict[str, list[float]] = {}
    for question, entry in index[0].items():
        people = [{**one, "answer": clean(one["answer"])} for one in entry["answers"]]
        given = clean(answer[question])
        if len({one["answer"] for one in people}) > 1:
            for one in people:
                one["answer"] = words(punctuation(one["answer"]))
            given = words(punctuation(given))
        each = []
        for one in people:
            others = [other for other in people if other != one]
            each.append(min(1.0, len([other for other in others if other["answer"] == given]) / 3))
        total.append(sum(each) / len(each))
        for kind in (entry["answer_type"], entry["question_type"]):
            by_kind.setdefault(kind, []).append(total[-1])
    assert all(by_kind.values())
    return 100 * sum(total) / len(total)


def vqa_loaded(questions: Any, annotations: Any, results: Any, way: str) -> Report:
    """Score loaded content: all of it, and apart from that the results alone, on ground truth that is read."""
    from harness.evaluation import vqa

    if way == "ours":
        reading, truth = timed(lambda: vqa.read_truth(questions, annotations))
        scoring, accuracy = timed(lambda: truth.evaluate(results).accuracy)
    else:
        reading, index = timed(lambda: official_index(questions, annotations))
        scoring, accuracy = timed(lambda: official_evaluate(index, results))
    return {"all": {key: reading[key] + scoring[key] for key in scoring}, "scoring": scoring, "accuracy": accuracy}
