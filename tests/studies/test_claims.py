"""Claims, stopping and power: what is stated beforehand, and when enough is known."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_studies import CARDS, arms, filled, write

from harness.errors import HarnessError
from harness.evaluation.resampling import holm
from harness.single_task import single_task
from harness.studies.claims import decided, direction
from harness.studies.page import html, markdown
from harness.studies.power import power, seeds_needed
from harness.studies.report import report
from harness.studies.spec import load_study
from harness.studies.stopping import chances_of_change, holm_columns

Command = Callable[..., "subprocess.CompletedProcess[str]"]
THREE = {
    "plain": {"model.placeholders.count": 0},
    "tokens": {},
    "frozen": {"model.placeholders.frozen": True},
}
CLAIM = {"claim": "Tokens <b>help</b>.", "arm": "tokens", "beats": ["plain", "frozen"]}


def judged(tmp_path: Path, rates: dict[str, list[float]], seeds: int = 4, **changes: Any) -> dict[str, Any]:
    path, board = write(tmp_path, arms=THREE, claims=[CLAIM], seeds=list(range(seeds)), **changes), tmp_path / "board"
    by_card = {name: dict(zip(CARDS, values, strict=True)) for name, values in rates.items()}
    found = filled(path, board, by_card, {name: list(range(seeds)) for name in rates})
    return report(load_study(path), found, board)


def test_a_claim_needs_every_control_beaten_and_not_the_plain_network_alone(tmp_path: Path) -> None:
    # On the first task tokens beat both; on the second they beat the plain network, but so do frozen ones.
    made = judged(tmp_path, {"plain": [0.3, 0.3], "tokens": [0.9, 0.9], "frozen": [0.3, 0.9]})
    (claim,) = made["claims"]
    assert [(task["card"], task["verdict"]) for task in claim["tasks"]] == [
        (CARDS[0], "supported"), (CARDS[1], "not told apart"),
    ]  # fmt: skip
    assert all(one["verdict"] == "better" for one in made["contrasts"] if one["arm"] == "tokens")
    for task in claim["tasks"]:
        if task["verdict"] == "supported":
            assert task["p_value"] == max(one["p_value"] for one in task["against"])
    assert claim["sentence"] == f"“Tokens <b>help</b>”: supported on {CARDS[0]}; not told apart on {CARDS[1]}."


def test_a_claim_is_contradicted_where_its_arm_is_worse_than_the_plain_network(tmp_path: Path) -> None:
    made = judged(tmp_path, {"plain": [0.9, 0.5], "tokens": [0.3, 0.5], "frozen": [0.1, 0.5]})
    assert [task["verdict"] for task in made["claims"][0]["tasks"]] == ["contradicted", "not told apart"]
    assert f"worse than plain, so contradicted on {CARDS[0]}" in made["claims"][0]["sentence"]


def test_bars_of_a_decided_claim_are_filled_for_the_comparisons_that_show_it(tmp_path: Path) -> None:
    made = judged(tmp_path, {"plain": [0.9, 0.5], "tokens": [0.3, 0.5], "frozen": [0.3, 0.5]})
    assert made["claims"][0]["tasks"][0]["against"][1]["p_value"] > 0.05
    claims = html(made).split("</table>")[0]
    assert [claims.count(f'class="forest {kind}"') for kind in ("worse", "better", "open")] == [1, 0, 3]


def test_a_claim_stays_open_while_a_control_has_not_run(tmp_path: Path) -> None:
    path = write(tmp_path, arms=THREE, claims=[CLAIM])
    made = report(load_study(path), arms(path), tmp_path / "empty")
    assert "open, for tokens, plain, frozen did not run" in made["claims"][0]["sentence"]


def test_claims_are_a_family_of_their_own(tmp_path: Path) -> None:
    made = judged(tmp_path, {"plain": [0.3, 0.4], "tokens": [0.5, 0.5], "frozen": [0.4, 0.4]})
    tasks = made["claims"][0]["tasks"]
    assert [task["p_holm"] for task in tasks] == holm([task["p_value"] for task in tasks])
    assert len(made["contrasts"]) == 4


@pytest.mark.parametrize(
    ("against", "expected"),
    [
        ([(0.1, 0.01), (0.2, 0.04)], (0.04, 1)),  # both beaten: the weaker proof counts
        ([(0.1, 0.001), (-0.2, 0.001)], (1.0, 0)),  # one control is better: nothing is said
        ([(-0.1, 0.02), (0.2, 0.001)], (0.02, -1)),  # worse than the first
        ([(0.0, 1.0)], (1.0, 0)),
    ],
)
def test_the_direction_of_a_claim_by_hand(against: list[tuple[float, float]], expected: tuple[float, int]) -> None:
    assert direction(against) == expected
    assert decided(0, 0.0) == "not told apart"


def contrast(by_seed: list[float], verdict: str, p: float, images: float = 0.0) -> dict[str, Any]:
    return {
        "arm": "a", "against": "b", "card": "c", "by_seed": by_seed, "difference": float(np.mean(by_seed)),
        "p_value": p, "p_holm": p, "verdict": verdict, "image_spread": images,
    }  # fmt: skip


def chance(one: dict[str, Any], planned: int) -> float:
    return chances_of_change([one], [], {"a": planned, "b": planned})["a"]


def test_what_is_clear_stays_as_it_is_and_what_is_on_the_edge_may_change() -> None:
    assert chance(contrast([0.101, 0.099, 0.1], "better", 0.001), 5) < 0.02
    nothing = chance(contrast([0.1, -0.1, 0.0, 0.05, -0.05], "not told apart", 0.99), 6)
    edge = chance(contrast([0.10, 0.03, 0.05, 0.02, 0.08], "not told apart", 0.06), 6)
    assert nothing < 0.05 < 0.3 < edge


def test_the_chance_of_change_is_that_of_the_differences_to_come() -> None:
    # One seed is left, and images add nothing: integrate the predictive t of the last difference.
    so_far = np.array([0.02, 0.05, 0.03, 0.06])
    now = float(stats.ttest_1samp(so_far, 0).pvalue)
    assert now < 0.05
    grid = stats.t.ppf((np.arange(20000) + 0.5) / 20000, 3)
    last = so_far.mean() + so_far.std(ddof=1) * (1 + 1 / 4) ** 0.5 * grid
    p = stats.ttest_1samp(np.column_stack([np.tile(so_far, (20000, 1)), last]), 0, axis=1).pvalue
    expected = float(np.mean(p >= 0.05))
    found = chance(contrast(so_far.tolist(), "better", now), 5)
    assert found == pytest.approx(expected, abs=3 * (expected * (1 - expected) / 2000) ** 0.5)


def test_an_arm_with_all_its_seeds_can_change_no_more_and_one_with_a_single_seed_can() -> None:
    assert chance(contrast([0.1, 0.0], "not told apart", 0.5), 2) == 0
    assert chance(contrast([0.1], "not told apart", 0.5), 3) == 1


@settings(max_examples=50)
@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=6))
def test_columns_are_corrected_as_single_families_are(rows: list[list[float]]) -> None:
    table = np.array(rows)
    corrected = holm_columns(table)
    for column in range(3):
        assert corrected[:, column].tolist() == pytest.approx(holm(table[:, column].tolist()))


def test_the_seeds_that_a_difference_needs_are_those_of_the_paired_t_test() -> None:
    # Cohen 1988: an effect of one standard deviation needs 10 pairs for 80% power at 0.05 (two-sided).
    assert seeds_needed(0.01, 0.01) == 10
    assert power(0.01, 0.01, 9) < 0.8 <= power(0.01, 0.01, 10)
    generator = np.random.default_rng(0)
    drawn = generator.normal(1.5, 1, (20000, 5))
    rejected = np.mean(stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05 / 3)
    assert power(1.5, 1, 5, family=3) == pytest.approx(rejected, abs=0.01)
    assert seeds_needed(1e-6, 0.9) is None


def test_an_arm_may_have_fewer_seeds_than_the_study_and_another_reference(tmp_path: Path) -> None:
    changes = {**THREE, "frozen": {"model.placeholders.frozen": True, "seeds": [0]}}
    path = write(tmp_path, arms=changes, against={"frozen": "tokens"}, seeds=[0, 1])
    found = filled(
        path, tmp_path / "board", dict.fromkeys(THREE, dict.fromkeys(CARDS, 0.5)),
        {"plain": [0, 1], "tokens": [0, 1], "frozen": [0]},
    )  # fmt: skip
    assert [arm.submission.seeds for arm in found.values()] == [(0, 1), (0, 1), (0,)]
    made = report(load_study(path), found, tmp_path / "board")
    assert {(one["arm"], one["against"]) for one in made["contrasts"]} == {("tokens", "plain"), ("frozen", "tokens")}
    assert not any(arm["missing_seeds"] for arm in made["arms"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"claims": [{**CLAIM, "beats": ["plan"]}]}, "claims: 'plan' is not an arm; did you mean 'plain'"),
        ({"claims": [{**CLAIM, "beats": ["tokens"]}]}, "claims: 'tokens' cannot beat itself"),
        ({"against": {"plain": "tokens"}}, "against: 'plain' is the baseline"),
        ({"against": {"tokens": "tokens"}}, "against: 'tokens' cannot be compared with itself"),
        ({"stop": {"after": 1}}, "stop.after"),
        (
            {"expected": {"shapes-classificatoin": {"effect": 0.1, "spread": 0.1}}},
            "did you mean 'shapes-classification'",
        ),
    ],
)
def test_what_is_wrong_in_claims_is_told(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        arms(write(tmp_path, arms=THREE, **changes))


def test_the_pages_show_claims_with_their_text_escaped(tmp_path: Path) -> None:
    made = judged(tmp_path, {"plain": [0.3, 0.3], "tokens": [0.9, 0.9], "frozen": [0.3, 0.9]}, seeds=3)
    page, text = html(made), markdown(made)
    assert "Tokens &lt;b&gt;help&lt;/b&gt;" in page
    assert "<b>help" not in page + text
    assert "supported" in text


def test_a_study_stops_an_arm_whose_seeds_are_clear_and_says_so(tmp_path: Path) -> None:
    stop = {"after": 3, "risk": 0.05}
    made = judged(tmp_path, {"plain": [0.2, 0.2], "tokens": [0.9, 0.9], "frozen": [0.2, 0.2]}, 4, stop=stop)
    assert all(arm["chance_of_change"] in (None, 0) for arm in made["arms"])  # all seeds are there
    path, board = tmp_path / "study.yaml", tmp_path / "fewer"
    rates = {"plain": 0.2, "tokens": 0.9, "frozen": 0.55}
    every = {name: dict.fromkeys(CARDS, rate) for name, rate in rates.items()}
    found = filled(path, board, every, {name: [0, 1, 2] for name in rates})
    by_name = {arm["arm"]: arm for arm in report(load_study(path), found, board)["arms"]}
    assert by_name["tokens"]["chance_of_change"] < 0.05
    assert by_name["tokens"]["stopped"]
    assert "stopped" in markdown(report(load_study(path), found, board))


def test_an_arm_goes_on_while_a_difference_of_differences_may_yet_change() -> None:
    # Both changes are clear by themselves, but not whether one does more than the other.
    contrasts = [
        contrast([0.101, 0.099, 0.1], "better", 0.001) | {"arm": "a", "against": "b"},
        contrast([0.051, 0.049, 0.05], "better", 0.001) | {"arm": "x", "against": "y"},
    ]
    planned = dict.fromkeys("abxy", 5)
    settled_ = chances_of_change(contrasts, [], planned)
    assert max(settled_.values()) < 0.05
    row = contrast([0.09, 0.03, 0.05], "not told apart", 0.09) | {"more": ["a", "b"], "than": ["x", "y"]}
    open_ = chances_of_change(contrasts, [], planned, [row])
    assert set(open_) == set("abxy")
    assert min(open_.values()) == max(open_.values()) > 0.3
    clear = row | {"by_seed": [0.05, 0.051, 0.049], "verdict": "more", "p_value": 0.001}
    assert max(chances_of_change(contrasts, [], planned, [clear]).values()) < 0.05
    assert min(chances_of_change(contrasts, [], planned, [row | {"by_seed": [0.09]}]).values()) == 1


def test_seeds_are_run_in_rounds_until_the_rule_is_met(tmp_path: Path, command: Command) -> None:
    arms_ = {"plain": {"model.placeholders.count": 0}, "again": {"model.placeholders": {"count": 2}}}
    write(tmp_path, arms=arms_, seeds=[0, 1, 2], stop={"after": 2, "risk": 0.49})
    small = ("--set", "training.steps=1", "--set", "evaluation.limit=8")
    told = command("study", "study.yaml", "--forecast", *small)
    assert "6 runs, 0 done, 6 to do, or fewer if seeds settle it early" in told.stderr
    done = command("study", "study.yaml", "-q", "--json", *small)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    counts = {arm["arm"]: (len(arm["seeds"]), arm["stopped"]) for arm in made["arms"]}
    assert counts["again"][0] in (2, 3)
    assert counts["plain"][0] == counts["again"][0]  # what it is compared with goes along
    assert counts["again"][1] == (counts["again"][0] == 2)


def test_a_task_alone_keeps_its_tokens_and_without_them_is_the_single_task_baseline(tmp_path: Path) -> None:
    both = {"single": {"alone": CARDS[0], "model.placeholders.count": 0}, "single_tokens": {"alone": CARDS[0]}}
    found = arms(write(tmp_path, arms={**THREE, **both}, against={"single_tokens": "single"}))
    expected = single_task(found["plain"].submission, CARDS[0])
    assert found["single"].submission.fingerprint() == expected.fingerprint()
    assert found["single"].submission.name == "tiny-single"
    assert found["single_tokens"].submission.model.placeholders.count == 4
    other = {"alone": CARDS[1], "model.placeholders.count": 0}
    asked = [{"question": "?", "more": ["tokens", "plain"], "than": ["single", "other"]}]
    with pytest.raises(HarnessError, match="tokens, plain, single, other have no task in common"):
        arms(write(tmp_path, arms={**THREE, **both, "other": other}, interactions=asked))
    assert [task.dataset for task in found["single_tokens"].submission.tasks] == [CARDS[0]]
    with pytest.raises(HarnessError, match="alone: 'shapes-vq' is no task of it; did you mean 'shapes-vqa'"):
        arms(write(tmp_path, arms={**THREE, "bad": {"alone": "shapes-vq"}}))
    with pytest.raises(HarnessError, match="control: equal_compute: with alone it would get the steps"):
        arms(write(tmp_path, arms={**THREE, "bad": {"alone": CARDS[0], "control": "equal_compute"}}))


def test_whether_tokens_do_more_among_several_tasks_is_a_difference_of_differences(tmp_path: Path) -> None:
    single = {"single": {"alone": CARDS[0], "model.placeholders.count": 0}, "single_tokens": {"alone": CARDS[0]}}
    asked = [{"question": "More?", "more": ["tokens", "plain"], "than": ["single_tokens", "single"]}]
    path = write(tmp_path, arms={**THREE, **single}, interactions=asked, seeds=[0, 1, 2])
    rates = {"plain": 0.2, "tokens": 0.9, "frozen": 0.2, "single": 0.5, "single_tokens": 0.5}
    cards = {name: CARDS[:1] if name.startswith("single") else CARDS for name in rates}
    every = {name: dict.fromkeys(cards[name], rate) for name, rate in rates.items()}
    found = filled(path, tmp_path / "board", every, {name: [0, 1, 2] for name in rates})
    made = report(load_study(path), found, tmp_path / "board")
    (row,) = made["interactions"]  # the other task is not learned alone
    by_name = {arm["arm"]: arm["tasks"][CARDS[0]]["value"] for arm in made["arms"]}
    expected = by_name["tokens"] - by_name["plain"] - by_name["single_tokens"] + by_name["single"]
    assert row["difference"] == pytest.approx(expected)
    assert row["verdict"] == "more"
    assert np.mean(row["by_seed"]) == pytest.approx(expected)
    assert row["image_spread"] > 0
    assert "More?" in html(made)
    assert "More?" in markdown(made)
