"""Which images the placeholder samples are drawn from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests_support import document

from harness.cards import load_card
from harness.data import open_split
from harness.data.unlabelled import UnlabelledData
from harness.errors import HarnessError
from harness.progress import Reporter
from harness.run_data import Splits, build_network, open_data, task_data
from harness.submission import Submission
from harness.training.engine import Engine
from harness.training.placeholders.k_center import k_center
from harness.training.placeholders.pools import POOLS, open_pools, unlabelled

pytestmark = pytest.mark.usefixtures("tiny_suite")
CLASSIFICATION = "shapes-classification"


def submission(ratio: float = 1, selection: str = "random", fraction: float = 0.25, **changes: Any) -> Submission:
    raw = document()
    for task in raw["tasks"]:
        task["fraction"] = fraction
    raw["training"]["placeholders"] = {"samples": {"ratio": ratio, "selection": selection}}
    return Submission.model_validate(raw | changes)


def pools(folder: Path, one: Submission, seed: int = 0) -> tuple[dict[str, UnlabelledData], Any, Splits]:
    splits = open_data(one)
    torch.manual_seed(seed)
    network = build_network(one, splits)
    data = {name: task_data(one, seed, splits, name, True) for name in splits.train}
    stream = torch.get_rng_state()
    found = open_pools(one, seed, splits, network, Engine("32"), data, folder, Reporter(quiet=True))
    assert torch.equal(torch.get_rng_state(), stream)
    assert network.training
    return found, network, splits


@pytest.mark.parametrize("selection", ["random", "k_center"])
def test_a_pool_has_ratio_times_the_labelled_images_and_none_of_them(tmp_path: Path, selection: str) -> None:
    one = submission(2, selection)
    found, _, splits = pools(tmp_path, one)
    for name, pool in found.items():
        labelled = task_data(one, 0, splits, name, True)
        assert len(pool) == min(2 * len(labelled), 24 - len(labelled))
        assert not set(pool.names) & set(labelled.names)
        assert pool.adapter.split == "train"


def test_a_larger_ratio_has_the_images_of_a_smaller_one_and_another_seed_has_others(tmp_path: Path) -> None:
    names = []
    for number, (ratio, seed) in enumerate(((0.5, 0), (1, 0), (1, 1))):
        (tmp_path / str(number)).mkdir()
        names.append(set(pools(tmp_path / str(number), submission(ratio, fraction=0.1), seed)[0]["shapes-vqa"].names))
    assert names[0] < names[1]
    assert names[1] != names[2]


def test_k_center_starts_from_the_labelled_images_in_the_features_of_the_fresh_network(tmp_path: Path) -> None:
    one = submission(0.5, "k_center")
    found, network, splits = pools(tmp_path, one)
    labelled = task_data(one, 0, splits, CLASSIFICATION, True)
    adapter = labelled.adapter
    everything = UnlabelledData(labelled, torch.arange(len(adapter)).numpy()).still()
    network.eval()
    with torch.no_grad():
        batch = everything.batch([(-1, row) for row in range(len(adapter))])
        features = network.shared({CLASSIFICATION: batch}, network.placeholders)[CLASSIFICATION].pooled
    assert labelled.rows is not None
    rest = [row for row in sorted(range(len(adapter)), key=lambda row: adapter.ids[row]) if row not in labelled.rows]
    chosen = k_center(features[rest], features[labelled.rows.tolist()], len(found[CLASSIFICATION]))
    assert sorted(rest[place] for place in chosen) == found[CLASSIFICATION].rows.tolist()  # type: ignore[union-attr]


def test_a_run_that_goes_on_reads_which_images_it_has(tmp_path: Path) -> None:
    one = submission(1, "k_center")
    first, _, _ = pools(tmp_path, one)
    again, _, _ = pools(tmp_path, one, seed=1)  # another network would choose others
    assert {name: pool.names for name, pool in first.items()} == {name: pool.names for name, pool in again.items()}
    kept = json.loads((tmp_path / POOLS).read_text())
    assert {name: sorted(names) for name, names in kept.items()} == {n: sorted(p.names) for n, p in first.items()}


def test_without_placeholder_samples_there_is_no_pool_and_no_file(tmp_path: Path) -> None:
    assert pools(tmp_path, submission(0))[0] == {}
    assert not list(tmp_path.iterdir())


def test_a_fraction_that_leaves_nothing_over_is_refused() -> None:
    one = submission(1, fraction=0.999)
    with pytest.raises(HarnessError, match=r"fraction 0.999 of shapes-classification leaves no image over"):
        unlabelled(one, open_data(one))


def test_images_that_another_task_is_scored_on_stay_out(
    tmp_path: Path, tiny_suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VQA v2's validation images lie inside COCO's train2017, under the same numbers."""
    one = submission(1)
    before = unlabelled(one, open_data(one))
    cache = tmp_path / "cache"
    shutil.copytree(tiny_suite / "shapes-v1", cache / "shapes-v1")
    adapter = open_split(load_card("shapes-detection"), "train")
    stranger = adapter.ids[int(before["shapes-detection"][0])]
    root = cache / "shapes-v1/vqa"
    for kind in ("v2_OpenEnded_mscoco_test2014_questions", "v2_mscoco_test2014_annotations"):
        file = root / f"{kind}.json"
        content = json.loads(file.read_text())
        entries = content["questions" if "questions" in content else "annotations"]
        old = entries[0]["image_id"]
        for entry in entries:
            entry["image_id"] = int(stranger) if entry["image_id"] == old else entry["image_id"]
        file.write_text(json.dumps(content))
    (root / f"test2014/COCO_test2014_{old:012d}.png").rename(root / f"test2014/COCO_test2014_{int(stranger):012d}.png")
    monkeypatch.setenv("HARNESS_CACHE", str(cache))
    after = unlabelled(one, open_data(one))
    assert after["shapes-detection"].tolist() == before["shapes-detection"][1:].tolist()
    assert after["shapes-classification"].tolist() == before["shapes-classification"].tolist()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("half", "unexpected"),
        ("[]", "indices"),
        ("{}", "is missing"),
        ('{"shapes-classification": ["no.png"]}', "does not have"),
    ],
)
def test_a_damaged_file_of_chosen_images_is_told_in_a_sentence(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / POOLS).write_text(content)
    with pytest.raises(HarnessError, match=rf"samples\.json: cannot be read as .*{reason}.*--fresh"):
        pools(tmp_path, submission(1))
    assert (tmp_path / POOLS).read_text() == content
