"""What a level of a grid's factor does on average over the levels of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from test_studies import CARDS, filled, record, write

from harness.board.records import write_record
from harness.evaluation.resampling import holm
from harness.studies.page import html, markdown
from harness.studies.report import report
from harness.studies.spec import arms_of, load_study
from harness.studies.stopping import chances_of_change

GRID = {
    "tokens": {"none": {"model.placeholders.count": 0}, "four": {}},
    "rate": {f"r{n}": {"training.optimizer.learning_rate": n / 1000} for n in (1, 2, 3)},
}
ARMS = [f"{tokens}-{rate}" for tokens in GRID["tokens"] for rate in GRID["rate"]]


def study(folder: Path, seeds: list[int], **changes: Any) -> Path:
    return write(folder, **{"arms": {}, "grid": GRID, "baseline": "none-r1", "seeds": seeds} | changes)


def made(path: Path, board: Path, draws: int = 400) -> dict[str, Any]:
    read = load_study(path)
    return report(read, arms_of(read, path), board, draws)


def given(path: Path, board: Path, rights: dict[str, list[int]], images: int = 400) -> None:
    """Records with as many right answers in each seed as told, by arm."""
    for name, arm in arms_of(load_study(path), path).items():
        for seed, right in enumerate(rights.get(name, [])):
            marks = np.random.default_rng([seed, 3]).permutation(images) < right
            write_record(board, *record(arm, seed, {CARDS[0]: marks}))


def test_it_is_the_mean_over_combinations_of_the_paired_differences(tmp_path: Path) -> None:
    path, board = study(tmp_path, [0, 1, 2]), tmp_path / "board"
    rights = {
        "none-r1": [200, 204, 208], "none-r2": [100, 108, 104], "none-r3": [300, 300, 300],
        "four-r1": [240, 240, 240], "four-r2": [160, 164, 162], "four-r3": [310, 330, 320],
    }  # fmt: skip
    given(path, board, rights)
    rows = {(one["factor"], one["level"]): one for one in made(path, board)["main_effects"]}
    assert list(rows) == [("tokens", "four"), ("rate", "r2"), ("rate", "r3")]
    tokens = rows["tokens", "four"]
    # By hand: 40, 36, 32 and 60, 56, 58 and 10, 30, 20 more right answers, of 400.
    assert tokens["by_combination"] == pytest.approx([36 / 400, 58 / 400, 20 / 400])
    assert tokens["by_seed"] == pytest.approx([110 / 1200, 122 / 1200, 110 / 1200])
    assert tokens["difference"] == pytest.approx(342 / 3600)
    assert tokens["first"] - tokens["second"] == pytest.approx(tokens["difference"])
    assert tokens["arms"] == [["four-r1", "none-r1"], ["four-r2", "none-r2"], ["four-r3", "none-r3"]]
    assert (tokens["against"], tokens["card"], tokens["seeds"]) == ("none", CARDS[0], [0, 1, 2])
    rate = rows["rate", "r3"]
    assert rate["arms"] == [["none-r3", "none-r1"], ["four-r3", "four-r1"]]
    assert rate["by_combination"] == pytest.approx([96 / 400, 80 / 400])
    assert [one["p_holm"] for one in rows.values()] == holm([one["p_value"] for one in rows.values()])


def test_seeds_and_not_combinations_are_the_replicates(tmp_path: Path) -> None:
    """Nine runs of each level whose differences depend on the seed alone say as much as three."""
    path, board = study(tmp_path, [0, 1, 2]), tmp_path / "board"
    given(
        path,
        board,
        {arm: [20_400, 20_800, 21_200] if arm.startswith("four") else [20_000] * 3 for arm in ARMS},
        images=40_000,
    )
    found = made(path, board)
    effect = next(one for one in found["main_effects"] if one["factor"] == "tokens")
    single = next(one for one in found["contrasts"] if one["arm"] == "four-r1")
    by_t_test = ttest_1samp([0.01, 0.02, 0.03], 0).pvalue
    assert effect["p_value"] == pytest.approx(by_t_test, rel=0.05)
    assert effect["difference"] == pytest.approx(single["difference"])
    assert effect["verdict"] == "not told apart"
    nine = ttest_1samp([0.01, 0.02, 0.03] * 3, 0).pvalue
    assert nine < 0.01 < effect["p_value"]


def test_averages_are_corrected_by_themselves_and_told_apart_where_one_arm_is_not(tmp_path: Path) -> None:
    path, board = study(tmp_path, [0, 1, 2]), tmp_path / "board"
    rng = np.random.default_rng(5)
    rights = {arm: (2000 + 110 * arm.startswith("four") + rng.integers(-18, 18, 3)).tolist() for arm in ARMS}
    given(path, board, rights, images=40_000)
    before = made(path, board)
    assert len(before["main_effects"]) == 3
    assert [one["p_holm"] for one in before["contrasts"]] == holm([one["p_value"] for one in before["contrasts"]])
    effect = next(one for one in before["main_effects"] if one["factor"] == "tokens")
    assert effect["verdict"] == "better"
    assert effect["detectable"] < min(one["detectable"] for one in before["contrasts"] if "four" in one["arm"])
    assert "correction over all 3 averages" in before["rule"]


def test_only_what_ran_with_both_levels_and_enough_seeds_counts(tmp_path: Path) -> None:
    path, board = study(tmp_path, [0, 1, 2]), tmp_path / "board"
    rights = {name: [200, 210, 220] for name in ("none-r1", "none-r2", "four-r1", "four-r2", "four-r3")}
    given(path, board, rights | {"four-r2": [200, 210]})
    (effect,) = (one for one in made(path, board)["main_effects"] if one["factor"] == "tokens")
    assert effect["arms"] == [["four-r1", "none-r1"], ["four-r2", "none-r2"]]  # none-r3 did not run
    assert effect["seeds"] == [0, 1]  # that all four have
    given(path, board, {"none-r3": [190]})
    (effect,) = (one for one in made(path, board)["main_effects"] if one["factor"] == "tokens")
    assert len(effect["arms"]) == 2  # one seed among several would leave the others out
    assert effect["seeds"] == [0, 1]
    alone = tmp_path / "alone"
    alone.mkdir()
    path, board = study(alone, [0, 1, 2]), alone / "board"
    given(path, board, {name: [200, 210, 220] for name in ("none-r1", "four-r1")})
    assert made(path, board)["main_effects"] == []  # no average over a single combination
    given(path, board, {name: [200] for name in ("none-r2", "four-r2")})
    assert {one["factor"] for one in made(path, board)["main_effects"]} == {"rate"}  # one seed of either level


def test_with_one_seed_each_images_alone_are_counted(tmp_path: Path) -> None:
    path, board = study(tmp_path, [0]), tmp_path / "board"
    given(path, board, {arm: [300 if arm.startswith("four") else 200] for arm in ARMS})
    rows = made(path, board)["main_effects"]
    assert [one["seeds"] for one in rows] == [[0]] * 3
    assert [one["verdict"] for one in rows] == ["better", "not told apart", "not told apart"]


def test_runs_of_a_few_images_are_not_averaged_with_whole_ones(tmp_path: Path) -> None:
    path, board = study(tmp_path, [0]), tmp_path / "board"
    given(path, board, {arm: [200] for arm in ARMS if arm != "four-r3"})
    arm = arms_of(load_study(path), path)["four-r3"]
    few, statistics = record(arm, 0, {CARDS[0]: np.ones(50, bool)})
    protocol = few.tasks[CARDS[0]].protocol.model_copy(update={"images": "1" * 64})
    task = few.tasks[CARDS[0]].model_copy(update={"protocol": protocol})
    write_record(board, few.model_copy(update={"tasks": {CARDS[0]: task}}), statistics)
    (effect,) = (one for one in made(path, board)["main_effects"] if one["factor"] == "tokens")
    assert [pair[0] for pair in effect["arms"]] == ["four-r1", "four-r2"]


def test_levels_are_compared_with_those_of_the_baseline_or_with_the_first(tmp_path: Path) -> None:
    rights = {arm: [200] for arm in ARMS}
    for number, (baseline, against) in enumerate([("four-r2", ["four", "r2", "r2"]), ("other", ["none", "r1", "r1"])]):
        folder = tmp_path / str(number)
        folder.mkdir()
        arms = {"other": {"training.steps": 5}} if baseline == "other" else {}
        path = study(folder, [0], baseline=baseline, arms=arms)
        given(path, folder / "board", rights | {"other": [100]})
        assert [one["against"] for one in made(path, folder / "board")["main_effects"]] == against


def test_the_order_of_factors_changes_no_average(tmp_path: Path) -> None:
    found = []
    for order in (1, -1):
        folder = tmp_path / str(order)
        folder.mkdir()
        grid = dict(list(GRID.items())[::order])
        path = study(folder, [0, 1], grid=grid, baseline="-".join(["none", "r1"][::order]))
        rights = {"-".join(arm.split("-")[::order]): [200 + 9 * n, 230 + 5 * n] for n, arm in enumerate(ARMS)}
        given(path, folder / "board", rights)
        rows = made(path, folder / "board")["main_effects"]
        found.append({(one["factor"], one["level"]): (one["difference"], one["by_seed"]) for one in rows})
    assert found[0].keys() == found[1].keys()
    for key, (difference, by_seed) in found[0].items():
        assert difference == pytest.approx(found[1][key][0])
        assert by_seed == pytest.approx(found[1][key][1])


def test_a_study_without_a_grid_has_none(tmp_path: Path) -> None:
    path, board = write(tmp_path), tmp_path / "board"
    filled(path, board, {"plain": {CARDS[0]: 0.5}, "tokens": {CARDS[0]: 0.7}}, {"plain": [0], "tokens": [0]})
    found = made(path, board)
    assert (found["main_effects"], found["factors"]) == ([], {})
    assert [arm["levels"] for arm in found["arms"]] == [None, None]
    assert "averages" not in found["rule"]


def test_the_report_shows_the_grid_as_tables_of_two_ways(tmp_path: Path) -> None:
    path, board = study(tmp_path, [0, 1]), tmp_path / "board"
    given(path, board, {"none-r1": [200, 200], "none-r2": [390, 388], "four-r1": [202, 204], "four-r2": [390, 389]})
    found = made(path, board)
    text = markdown(found)
    assert [line for line in text.splitlines() if line.startswith(("| none |", "| four |"))] == [
        "| none | 50.0 (baseline) | **97.2 (+47.2)** |  |",
        "| four | 50.8 (+0.8) | **97.4 (+47.4)** |  |",
    ]
    assert f"| {CARDS[0]} | r1 | r2 | r3 |" in text
    assert f"| four against none | {CARDS[0]} | +0.44 | " in text
    assert "r1 +0.8, r2 +0.1 |" in text
    assert "with tokens down and rate across" in text
    page = html(found)
    assert '<td class="p5 clear" title="none-r2: 95% interval' in page
    assert '<td class="undefined">' in page
    assert "<small>baseline</small>" in page
    assert page.count('<svg class="forest') == len(found["contrasts"]) + len(found["main_effects"]) + 3  # Δm


def test_a_grid_of_one_factor_is_no_table_of_two_ways(tmp_path: Path) -> None:
    path, board = study(tmp_path, [0], grid={"rate": GRID["rate"]}, baseline="r1"), tmp_path / "board"
    given(path, board, {"r1": [200], "r2": [210], "r3": [220]})
    found = made(path, board)
    assert found["main_effects"] == []
    assert "## Grid" not in markdown(found)
    assert 'class="heat"' not in html(found)


def test_three_factors_have_the_first_down_and_the_others_across(tmp_path: Path) -> None:
    grid = {
        "tokens": GRID["tokens"],
        "rate": {"r1": {}, "r2": GRID["rate"]["r2"]},
        "flip": {"f": {"tasks.0.flip": 0.5}, "u": {"tasks.0.flip": 0.0}},
    }
    path, board = study(tmp_path, [0], grid=grid, baseline="none-r1-f"), tmp_path / "board"
    given(path, board, {f"none-{rate}-{flip}": [200] for rate in ("r1", "r2") for flip in "fu"})
    found = made(path, board)
    assert f"| {CARDS[0]} | r1-f | r1-u | r2-f | r2-u |" in markdown(found)
    assert "with tokens down and rate and flip across" in html(found)
    assert [(one["factor"], one["arms"]) for one in found["main_effects"]] == [
        ("rate", [["none-r2-f", "none-r1-f"], ["none-r2-u", "none-r1-u"]]),
        ("flip", [["none-r1-u", "none-r1-f"], ["none-r2-u", "none-r2-f"]]),
    ]
    assert "On average over the grid, u against f: not told apart" in found["verdicts"][1]


def test_an_average_that_another_seed_may_change_keeps_its_arms_running() -> None:
    row = {
        "arms": [["a-x", "b-x"], ["a-y", "b-y"]],
        "by_seed": [0.01, 0.02],
        "difference": 0.015,
        "p_value": 0.06,
        "image_spread": 0.001,
        "verdict": "not told apart",
    }
    planned = dict.fromkeys(["a-x", "b-x", "a-y", "b-y", "other"], 5)
    chances = chances_of_change([], [], planned, effects=[row])
    assert chances.keys() == {"a-x", "b-x", "a-y", "b-y"}
    assert min(chances.values()) > 0.5
    settled = row | {"by_seed": [0.0, 0.0002, -0.0002], "difference": 0.0, "p_value": 1.0, "image_spread": 0.01}
    assert max(chances_of_change([], [], planned, effects=[settled]).values()) < 0.05
