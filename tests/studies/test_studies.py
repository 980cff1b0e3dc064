"""Studies: what is read, what is run, and what the report says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests_support import document

from harness import api
from harness.board.compare import compare
from harness.board.records import Protocol, Provenance, Record, TaskResult, hash_arrays, write_record
from harness.errors import HarnessError
from harness.evaluation import classification
from harness.evaluation.resampling import holm
from harness.studies.contrasts import records_of
from harness.studies.page import html, markdown
from harness.studies.report import report
from harness.studies.run import forecast, submissions
from harness.studies.spec import Arm, Study, arms_of, load_study

Command = Callable[..., "subprocess.CompletedProcess[str]"]
CARDS = ("shapes-classification", "shapes-vqa")


def write(folder: Path, **changes: Any) -> Path:
    raw = document()
    raw["tasks"] = [task for task in raw["tasks"] if task["dataset"] in CARDS]
    (folder / "base.yaml").write_text(yaml.safe_dump(raw))
    study = {
        "name": "tiny",
        "base": "base.yaml",
        "seeds": [0, 1],
        "baseline": "plain",
        "arms": {"plain": {"model.placeholders.count": 0}, "tokens": {}},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study | changes, sort_keys=False))
    return folder / "study.yaml"


def arms(path: Path) -> dict[str, Arm]:
    return arms_of(load_study(path), path)


def test_an_arm_is_the_base_with_its_changes_under_a_name_of_its_own(tmp_path: Path) -> None:
    found = arms(write(tmp_path))
    assert {name: arm.submission.name for name, arm in found.items()} == {
        "plain": "tiny-plain",
        "tokens": "tiny-tokens",
    }
    assert [arm.submission.model.placeholders.count for arm in found.values()] == [0, 4]
    assert {arm.submission.seeds for arm in found.values()} == {(0, 1)}


def test_a_grid_has_an_arm_for_every_combination(tmp_path: Path) -> None:
    grid = {
        "tokens": {"none": {"model.placeholders.count": 0}, "four": {}},
        "rate": {"slow": {"training.optimizer.learning_rate": 0.001}, "fast": {}},
    }
    found = arms(write(tmp_path, arms={}, grid=grid, baseline="none-fast"))
    assert list(found) == ["none-slow", "none-fast", "four-slow", "four-fast"]
    one = found["none-slow"].submission
    assert (one.model.placeholders.count, one.training.optimizer.learning_rate) == (0, 0.001)
    assert found["four-fast"].submission.model.placeholders.count == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "plan"}, "baseline: 'plan' is not an arm; did you mean 'plain'"),
        ({"arms": {"plain": {}}}, "a study compares two arms at least"),
        ({"arms": {"plain": {}, "same": {}}}, "arms plain and same are the same submission"),
        ({"arms": {"plain": {}, "bad": {"model.backbone.nmae": "x"}}}, "arm bad: .*did you mean 'name'"),
        ({"arms": {"plain": {}, "bad": {"tasks.9.flip": 1}}}, "arm bad: tasks.9.flip: '9' is not an index"),
        ({"arms": {"plain": {}, "../up": {}}}, "String should match|does not match|pattern"),
        ({"grid": {"a": {}}}, "grid.a: has no levels"),
        ({"grid": {"a": {"x": {"name": 1}}, "b": {"y": {"name": 2}}}}, "two factors of x-y change 'name'"),
        ({"seeds": [0, 0]}, "names a seed twice"),
        ({"base": "none.yaml"}, "none.yaml: no such file"),
        ({"bse": "x"}, "did you mean 'base'"),
        ({"arms": {"plain": {}, "b": {"seeds": 3}}}, r"study.yaml: arms.b.seeds: 3 is not a list of different whole"),
        ({"arms": {"plain": {}, "b": {"seeds": [1, True]}}}, r"arms.b.seeds: \[1, True\] is not a list"),
        ({"arms": {"plain": {}, "b": {"seeds": []}}}, r"arms.b.seeds: \[\] is not a list"),
        ({"grid": {"a": {"x": {"seeds": [0, 0]}}}}, r"grid: seeds of x: \[0, 0\] is not a list"),
        ({"arms": {"plain": {}, "b": {"tasks": 3}}}, r"study.yaml: arm b: tasks: input should be a valid list, got 3"),
        ({"arms": 3}, r"study.yaml: arms: input should be a valid mapping, got 3"),
        ({"stop": {"after": 9}}, "stop.after: 9, but no arm has more than 2 seeds"),
        ({"stop": {"after": 2}}, "stop.after: 2, but no arm has more than 2 seeds"),
    ],
)
def test_what_is_wrong_in_a_study_is_told(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        arms(write(tmp_path, **changes))


def test_a_rule_for_stopping_may_be_for_one_arm_of_more_seeds(tmp_path: Path) -> None:
    changes = {"plain": {"model.placeholders.count": 0}, "tokens": {"seeds": [0, 1, 2]}}
    assert load_study(write(tmp_path, arms=changes, stop={"after": 2})).stop is not None


def test_a_base_that_is_not_valid_is_blamed_itself(tmp_path: Path) -> None:
    path = write(tmp_path)
    base = yaml.safe_load((tmp_path / "base.yaml").read_text())
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base | {"sedes": [0]}))
    with pytest.raises(HarnessError, match=r"study.yaml: arm plain: .*base.yaml: sedes: unknown key"):
        arms(path)


def record(arm: Arm, seed: int, right: dict[str, np.ndarray], **fields: Any) -> tuple[Record, dict[str, Any]]:
    tasks, statistics = {}, {}
    for card, marks in right.items():
        labels = np.arange(len(marks)) % 3
        ids = [f"{number:05d}" for number in range(len(marks))]
        result = classification.evaluate(labels, np.where(marks, labels, (labels + 1) % 3), ids, ["a", "b", "c"])
        digest = "0" * 64
        protocol = Protocol(
            card=card, card_version="1", split="val", images=digest, annotations=digest, metric="top1", metric_version=1
        )
        tasks[card] = TaskResult(
            task="classification", protocol=protocol, main="top1", metrics=result.reduce(),
            per_class=result.per_class(), images=len(marks), statistics=hash_arrays(result.statistics),
        )  # fmt: skip
        statistics[card] = result.statistics
    given = {"name": arm.submission.name, "fingerprint": arm.submission.fingerprint()} | fields
    return Record(seed=seed, tasks=tasks, provenance=Provenance(version="1"), **given), statistics


def filled(path: Path, board: Path, rates: dict[str, dict[str, float]], seeds: dict[str, list[int]]) -> dict[str, Arm]:
    found = arms(path)
    for name, arm in found.items():
        for seed in seeds[name]:
            draw = np.random.default_rng([7, seed, *name.encode()])
            marks = {card: draw.random(400) < rate for card, rate in rates[name].items()}
            write_record(board, *record(arm, seed, marks))
    return found


def test_the_report_compares_over_common_seeds_and_corrects_over_the_whole_study(tmp_path: Path) -> None:
    path, board = write(tmp_path, seeds=[0, 1, 2, 3]), tmp_path / "board"
    rates = {"plain": {CARDS[0]: 0.5, CARDS[1]: 0.5}, "tokens": {CARDS[0]: 0.9, CARDS[1]: 0.5}}
    found = filled(path, board, rates, {"plain": [0, 1, 2, 3], "tokens": [0, 1, 2, 3]})
    made = report(load_study(path), found, board)
    assert [(one["arm"], one["card"], one["verdict"]) for one in made["contrasts"]] == [
        ("tokens", CARDS[0], "better"), ("tokens", CARDS[1], "not told apart"),
    ]  # fmt: skip
    against = compare(board, "tiny-tokens", "tiny-plain")
    for one, task in zip(made["contrasts"], against.tasks, strict=True):
        assert one["difference"] == task.paired.difference
        assert (one["low"], one["high"], one["p_value"]) == (task.paired.low, task.paired.high, task.paired.p_value)
    assert [one["p_holm"] for one in made["contrasts"]] == holm([one["p_value"] for one in made["contrasts"]])
    (sentence,) = made["verdicts"]
    assert sentence.startswith(f"tokens against plain: better on {CARDS[0]} (+")
    assert f"not told apart on {CARDS[1]} (" in sentence
    change = made["arms"][1]["delta_m"]
    assert change.pop("seeds") == [0, 1, 2, 3]
    assert change == pytest.approx(against.delta_m.model_dump(exclude={"tasks"}))  # type: ignore[union-attr]
    assert made["arms"][0]["delta_m"] is None
    assert "One seed" not in sentence


def test_missing_seeds_are_told_and_left_out_on_both_sides(tmp_path: Path) -> None:
    path, board = write(tmp_path), tmp_path / "board"
    rates = dict.fromkeys(("plain", "tokens"), dict.fromkeys(CARDS, 0.5))
    found = filled(path, board, rates, {"plain": [0, 1], "tokens": [1]})
    made = report(load_study(path), found, board)
    assert [arm["missing_seeds"] for arm in made["arms"]] == [[], [0]]
    assert {tuple(one["seeds"]) for one in made["contrasts"]} == {(1,)}
    assert "One seed speaks of these trained weights" in made["verdicts"][0]
    assert made["arms"][1]["delta_m"]["seeds"] == [1]  # all that the arm has: nothing to add
    assert "seed 1" not in markdown(made) + html(made)
    empty = report(load_study(path), found, tmp_path / "nothing")
    assert empty["verdicts"] == ["Nothing to compare yet: tokens."]
    assert "missing 0, 1" in markdown(empty)
    assert "missing 0, 1" in html(empty)


def test_seeds_are_paired_whatever_order_an_arm_names_them_in(tmp_path: Path) -> None:
    rates = {"plain": dict.fromkeys(CARDS, 0.7), "tokens": dict.fromkeys(CARDS, 0.75)}
    found = []
    for order in ([0, 1, 2], [2, 0, 1]):
        folder = tmp_path / str(order[0])
        folder.mkdir()
        path = write(
            folder, seeds=[0, 1, 2], arms={"plain": {"model.placeholders.count": 0}, "tokens": {"seeds": order}}
        )
        board = folder / "board"
        made = report(load_study(path), filled(path, board, rates, {name: [0, 1, 2] for name in rates}), board, 200)
        found.append((made["contrasts"], [arm["delta_m"] for arm in made["arms"]]))
    assert found[0] == found[1]
    assert len({round(value, 9) for value in found[0][0][0]["by_seed"]}) > 1


def test_arms_that_did_not_run_are_named_together_and_an_open_claim_says_why(tmp_path: Path) -> None:
    more = {"four": {"training.optimizer.learning_rate": 0.001}, "five": {"training.optimizer.learning_rate": 0.002}}
    path = write(
        tmp_path,
        arms={"plain": {"model.placeholders.count": 0}, "tokens": {}} | more,
        claims=[{"claim": "Tokens help", "arm": "tokens", "beats": ["plain", "four"]}],
    )
    rates = {"plain": dict.fromkeys(CARDS, 0.5), "tokens": dict.fromkeys(CARDS, 0.5)}
    found = filled(path, tmp_path / "board", rates, {"plain": [0, 1], "tokens": [0], "four": [], "five": []})
    made = report(load_study(path), found, tmp_path / "board")
    page = html(made)
    assert "Did not run yet: four, five (missing 0, 1)." in page
    assert "Did not run yet: four, five (missing 0, 1)." in markdown(made)
    assert "open: four did not run" in page
    assert "<dd>3 of 8</dd>" in page
    for text in made["verdicts"]:
        assert text.count("80% power") == 0  # what detectable means is said once, beside them
    assert page.count("80% power") == 2
    assert "detectable" in made["verdicts"][0]


def test_a_smoke_run_is_marked_in_the_report(tmp_path: Path) -> None:
    path, board = write(tmp_path), tmp_path / "board"
    found = arms(path)
    marks = {card: np.arange(50) % 2 == 0 for card in CARDS}
    limited = {"rankable": False, "unrankable_because": ["limited to 50 images"]}
    for name, arm in found.items():
        write_record(board, *record(arm, 0, marks, **(limited if name == "tokens" else {})))
    made = report(load_study(path), found, board)
    assert [arm["problems"] for arm in made["arms"]] == [[], ["limited to 50 images"]]
    assert "not ranked: limited to 50 images" in html(made)


def test_the_forecast_counts_what_is_there_and_takes_costs_from_it(tmp_path: Path) -> None:
    path, board = write(tmp_path), tmp_path / "board"
    found = arms(path)
    files = submissions(found, tmp_path / "files", single_tasks=False, board=board)
    assert forecast(files, board) == {"runs": 4, "done": 0, "missing": 4, "seconds": None}
    marks = {card: np.arange(50) % 2 == 0 for card in CARDS}
    cost = {"train_seconds": 10.0, "evaluation_seconds": 2.0}
    write_record(board, *record(found["plain"], 0, marks, cost=cost))
    assert forecast(files, board) == {"runs": 4, "done": 1, "missing": 3, "seconds": 36.0}
    single = submissions(found, tmp_path / "files", single_tasks=True, board=board)
    assert len(single) == len(files) + len(CARDS)  # both arms have the same single tasks


def test_a_submission_goes_by_one_name_whatever_it_is_called_in_the_study(tmp_path: Path) -> None:
    alone = {"alone": CARDS[0], "model.placeholders.count": 0}
    path, board = write(tmp_path, arms={"plain": {"model.placeholders.count": 0}, "one": alone}), tmp_path / "board"
    found = arms(path)
    names = {file.stem: api.load(file).name for file in submissions(found, tmp_path / "a", True, board)}
    (single,) = (name for stem, name in names.items() if stem.startswith(f"single-{CARDS[0]}"))
    assert names["one"] == single == "tiny-one"  # no seed of it is trained twice
    marks = {CARDS[0]: np.arange(50) % 2 == 0}
    write_record(board, *record(found["one"], 0, marks, name="earlier"))
    files = submissions(found, tmp_path / "b", True, board)
    loaded = [api.load(file) for file in files]
    assert {one.name for one in loaded if one.fingerprint() == found["one"].submission.fingerprint()} == {"earlier"}
    assert "tiny-plain" in {one.name for one in loaded}
    for seed in (0, 1):
        write_record(board, *record(found["one"], seed, marks, name="another"))
    write_record(board, *record(found["one"], 0, marks))
    assert "tiny-one" in {api.load(file).name for file in submissions(found, tmp_path / "c", True, board)}


def test_pages_show_hostile_text_as_text(tmp_path: Path) -> None:
    path, board = (
        write(tmp_path, description="<script>alert(1)</script> [x](javascript:a) \x1b[31m"),
        tmp_path / "board",
    )
    rates = dict.fromkeys(("plain", "tokens"), dict.fromkeys(CARDS, 0.5))
    made = report(load_study(path), filled(path, board, rates, {"plain": [0], "tokens": [0]}), board)
    assert "<script>" not in html(made)
    assert "&lt;script&gt;" in html(made)
    assert "<script>" not in markdown(made)
    assert "\x1b" not in html(made) + markdown(made)


def test_a_study_runs_what_is_missing_and_writes_its_report(command: Command, tmp_path: Path) -> None:
    path = write(tmp_path)
    changed = ("study", path.name, "--seeds", "0", "--set", "training.steps=2")
    told = command(*changed, "--forecast", "--json")
    assert json.loads(told.stdout) == {"runs": 2, "done": 0, "missing": 2, "seconds": None}
    assert not (tmp_path / "leaderboard").exists()
    done = command(*changed)
    assert done.returncode == 0, done.stderr
    assert "tiny: 2 runs, 0 done, 2 to do" in done.stderr
    assert done.stdout.startswith("tokens against plain: ")
    folder = tmp_path / "leaderboard" / "studies" / "tiny"
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    (folder / "report.md").unlink()
    reported = command(*changed, "--seeds", "0,1", "--report")
    assert reported.returncode == 0, reported.stderr
    assert "2 done, 2 to do" in reported.stderr
    assert "missing 1" in (folder / "report.md").read_text()
    assert set(before) == {"report.json", "report.md", "report.html"}
    again = command(*changed, "--launcher", "local")
    assert again.returncode == 0, again.stderr
    assert "2 done, 0 to do" in again.stderr
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    bad = command("study", path.name, "--set", "training.stps=2")
    assert bad.returncode == 2
    assert "did you mean 'steps'" in bad.stderr


@pytest.mark.usefixtures("tiny_suite")
def test_the_shipped_studies_are_valid() -> None:
    files = sorted((Path(__file__).parents[2] / "baselines" / "studies").glob("*.yaml"))
    assert files
    for file in files:
        assert len(arms(file)) > 1


def test_a_studys_own_runs_come_first_then_those_that_are_trusted_most(tmp_path: Path) -> None:
    arm = arms(write(tmp_path, seeds=[0, 1, 2]))["tokens"]
    own = arm.submission.name
    handed_in = [(own, 0, "reported"), ("aaa", 0, "rescored")]
    handed_in += [(name, seed, trust) for seed in (1, 2) for name, trust in (("aaa", "rescored"), ("bbb", "reported"))]
    marks = {CARDS[0]: np.ones(4, bool)}
    board = [record(arm, seed, marks, name=name, trust=trust)[0] for name, seed, trust in handed_in]
    assert [one.name for one in records_of(arm, board)] == [own, "aaa", "aaa"]


def test_the_example_of_the_reference_is_valid() -> None:
    page = (Path(__file__).parents[2] / "docs" / "studies.md").read_text()
    study = Study.model_validate(yaml.safe_load(page.split("```yaml")[1].split("```")[0]))
    assert study.baseline in study.changes()


def test_the_key_changes_of_a_study_are_not_shared_between_arms() -> None:
    study = Study.model_validate(
        {
            "name": "x",
            "base": "b",
            "baseline": "a-c",
            "grid": {"one": {"a": {}, "b": {"k": 1}}, "two": {"c": {}, "d": {"l": 2}}},
        }
    )
    assert study.changes() == {"a-c": {}, "a-d": {"l": 2}, "b-c": {"k": 1}, "b-d": {"k": 1, "l": 2}}
