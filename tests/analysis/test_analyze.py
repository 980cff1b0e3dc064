"""The analysis of a run from end to end: what is in it, what it refuses, and a page that is safe to open."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests_support import document

from harness import api
from harness.analysis import page
from harness.analysis.opening import evenly, find_record, open_run
from harness.analysis.report import analyze
from harness.errors import HarnessError
from harness.progress import Reporter
from harness.scoring import record_predictions

QUIET = Reporter(quiet=True)
CARDS = ("shapes-classification", "shapes-vqa")


def trained(folder: Path, count: int = 4, **changes: Any) -> str:
    """Train a tiny run of two tasks; returns its name."""
    raw = document(count, steps=3)
    raw["tasks"] = [task for task in raw["tasks"] if task["dataset"] in CARDS]
    for key, value in changes.items():
        target = raw
        *parts, last = key.split("__")
        for part in parts:
            target = target[part]
        target[last] = value
    file = folder / f"{raw['name']}.yaml"
    file.write_text(yaml.safe_dump(raw))
    api.submit(file, [0], board=folder / "board", runs=folder / "runs")
    return str(raw["name"])


def analyzed(folder: Path, name: str, images: int = 6) -> dict[str, Any]:
    found, _ = analyze(name, None, folder / "board", folder / "runs", images, folder / "out", QUIET, draws=100)
    return found


class Tags(HTMLParser):
    """Collects tags and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]


@pytest.mark.slow
def test_a_run_with_tokens_is_analysed_in_all_parts_the_same_way_twice(tiny_suite: Path, tmp_path: Path) -> None:
    name = trained(tmp_path, training__log_affinity=1)
    found = analyzed(tmp_path, name, images=100)
    # All 8 images were looked at: the numbers are those of the record, by the same path.
    for one in found["tasks"].values():
        assert one["images"] == one["recorded_images"] == 8
        assert one["value"] == one["recorded"]
    assert found["left_out"] == []
    assert found["dependency"]["replaced_by"] == "mean"
    assert {card: len(tokens) for card, tokens in found["dependency"]["tasks"].items()} == dict.fromkeys(CARDS, 4)
    assert [one["control"] for one in found["controls"][CARDS[0]]] == ["mean", "zero", "shuffle", "swap"]
    vqa = found["attention"]["shapes-vqa"]
    assert list(vqa)[-3:] == ["vqa.image", "text", "vqa.question"]
    for sites in found["attention"].values():
        for one in sites.values():
            assert sum(one["mass"]) == pytest.approx(1)
            assert 0 <= one["write_entropy"] <= 1
    assert vqa["vqa.question"]["read_entropy"] is None  # one question: there is nothing to choose
    assert {card: len(points) for card, points in found["picture"]["pca"]["points"].items()} == dict.fromkeys(CARDS, 8)
    assert {image["id"] for image in found["maps"]["shapes-classification"]} > set()
    assert all(len(image["sites"]) == 3 for image in found["maps"]["shapes-vqa"])  # two of the backbone, one of VQA
    alike = {(one["a"], one["b"]): one for one in found["similarity"]["tokens"]}
    assert alike[CARDS[0], CARDS[0]]["cka"] == pytest.approx(1)
    assert not alike[CARDS]["identical"]  # the question and its fusion come in between
    assert found["gradients"]["measured"] == "at the final weights"
    (pair,) = found["gradients"]["pairs"]
    assert pair["count"] == 8
    assert -1 <= pair["low"] <= pair["mean"] <= pair["high"] <= 1
    assert len(found["affinity"]) == 4
    assert found["interaction"]["missing"]["runs"] == 2  # each task alone, with the tokens
    assert page.html(found) == page.html(analyzed(tmp_path, name, images=100))
    seen = Tags(page.html(found))
    assert "script" not in seen.tags
    assert all(one.startswith(("data:image/jpeg;base64,", "#")) for one in seen.addresses)
    files = page.write(found, tmp_path / "out")
    assert json.loads(files[1].read_bytes()) == json.loads(json.dumps(page.document(found)))
    # What is missing can be trained as it is told, and is found then.
    for file in sorted((tmp_path / "out" / "subsets").iterdir()):
        api.submit(file, board=tmp_path / "board", runs=tmp_path / "runs")
    again = analyzed(tmp_path, name)
    assert again["interaction"]["missing"]["runs"] == 0
    total = again["interaction"]["total"]["shapes-vqa"]
    assert total is not None
    assert again["interaction"]["shapley"]["shapes-classification"]["shapes-vqa"]["value"] == total["value"]
    assert "Shapley value" in page.html(again)


@pytest.mark.slow
def test_the_plain_network_gets_the_parts_that_make_sense(tiny_suite: Path, tmp_path: Path) -> None:
    found = analyzed(tmp_path, trained(tmp_path, 0, training__log_gradients=1))
    assert [one["part"] for one in found["left_out"]] == ["tokens"]
    assert all(found[key] is None for key in ("tokens", "dependency", "controls", "attention", "picture"))
    assert all(one["cka"] is None for one in found["similarity"]["tokens"])
    assert len(found["similarity"]["outputs"]) == 3
    assert found["gradients"]["measured"] == "in training"
    text = page.html(found)
    assert "Which task depends" not in text
    assert "Tokens, linear CKA" not in text
    assert "Outputs, linear CKA" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "attended"), [({"placement": "input"}, ["shapes-vqa"]), ({"placement": "output"}, None)]
)
def test_tokens_that_read_nothing_are_removed_instead_of_averaged(
    tiny_suite: Path, tmp_path: Path, way: dict[str, str], attended: list[str] | None
) -> None:
    place = document()["model"]["placeholders"] | way
    found = analyzed(tmp_path, trained(tmp_path, model__placeholders=place))
    assert found["dependency"]["replaced_by"] == "zero"
    assert [one["control"] for one in found["controls"][CARDS[0]]] == ["zero"]
    # A border of pixels is in no attention; tokens among the words of a question are.
    assert {one["part"] for one in found["left_out"]} == {"picture", *([] if attended else ["attention"])}
    assert (None if found["attention"] is None else [k for k, v in found["attention"].items() if v]) == attended
    page.html(found)


@pytest.mark.slow
def test_a_run_with_prefixes_tells_who_looks_at_them(tiny_suite: Path, tmp_path: Path) -> None:
    sizes = {"img_size": 64, "patch_size": 16, "embed_dim": 32, "depth": 3, "num_heads": 2}
    backbone = {"name": "vit_tiny_patch16_224", "options": sizes}
    tokens = document()["model"]["placeholders"] | {"mechanism": "prefix_deep"}
    changes = {"model__backbone": backbone, "model__neck": {"channels": 32, "strides": [16]}}
    changes |= {"model__placeholders": tokens, "model__heads__vqa__stride": 16}
    found = analyzed(tmp_path, trained(tmp_path, **changes), images=100)
    blocks = [f"backbone.blocks.{number}" for number in range(3)]
    assert list(found["attention"]["shapes-classification"]) == blocks
    assert set(found["attention"]["shapes-vqa"]) > set(blocks)
    for sites in found["attention"].values():
        for one in sites.values():
            assert 0 < one["to_tokens"] < 1
            assert sum(one["mass"]) == pytest.approx(1)
    assert all(one["value"] == one["recorded"] for one in found["tasks"].values())  # watching changed nothing
    for image in found["maps"]["shapes-classification"]:
        assert [site["site"] for site in image["sites"]] == blocks
        assert [len(site["views"]) for site in image["sites"]] == [4, 4, 4]
    text = page.html(found)
    assert "Attention to the inserted tokens" in text
    assert "Which parts of an image look at the tokens" in text
    assert "Attention at the exchange sites" not in text


@pytest.mark.slow
def test_what_is_not_there_is_refused_with_the_mend(tiny_suite: Path, tmp_path: Path) -> None:
    name = trained(tmp_path)
    board, runs = tmp_path / "board", tmp_path / "runs"

    def refused(match: str, entry: str = name, seed: int | None = None, folder: Path = runs) -> None:
        with pytest.raises(HarnessError, match=match):
            open_run(entry, seed, board, folder, 4, QUIET)

    refused("is no entry of this board", "tinny")
    refused("--seed 7: .* has no such seed on the board; it has 0", seed=7)
    refused("the folder of this run is not here, .* --runs", folder=tmp_path / "elsewhere")
    (run,) = runs.glob("*-seed0")
    weights = (run / "weights.safetensors").read_bytes()
    (run / "weights.safetensors").write_bytes(weights[:-1] + b"x")
    refused("not the weights that the record names")
    (run / "weights.safetensors").unlink()
    refused("weights.safetensors: no such file, .* harness submit --fresh")
    text = (run / "submission.yaml").read_text()
    (run / "submission.yaml").write_text(text.replace("steps: 3", "steps: 4"))
    refused("has the fingerprint .* not .* as the record")


@pytest.mark.slow
def test_predictions_that_were_handed_in_have_no_network(tiny_suite: Path, tmp_path: Path) -> None:
    trained(tmp_path)
    (predictions,) = (tmp_path / "runs").glob("*/predictions/shapes-classification.npz")
    record_predictions("shapes-classification", predictions, "handed-in", 0, tmp_path / "board")
    with pytest.raises(HarnessError, match="was handed in as predictions"):
        find_record("handed-in", None, tmp_path / "board")


@pytest.mark.slow
def test_images_are_shown_only_where_the_licence_allows_it(tiny_suite: Path, tmp_path: Path) -> None:
    cards = tmp_path / "datasets"
    cards.mkdir()
    shipped = yaml.safe_load((Path(__file__).parents[2] / "datasets" / "shapes-classification.yaml").read_text())
    (cards / "mine.yaml").write_text(yaml.safe_dump(shipped | {"name": "mine", "redistributable": False}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        one = document()["tasks"][0] | {"dataset": "mine"}
        found = analyzed(tmp_path, trained(tmp_path, tasks=[one, document()["tasks"][3]]))
    assert list(found["maps"]) == ["shapes-vqa"]
    assert found["attention"]["mine"]
    assert {"part": "attention over images of mine", "reason": "its licence does not allow showing them"} in found[
        "left_out"
    ]


@pytest.mark.slow
def test_names_that_want_to_be_markup_are_shown_as_text(tiny_suite: Path, tmp_path: Path) -> None:
    found = analyzed(tmp_path, trained(tmp_path))
    bad = "<script>alert(1)</script>\u202e\"'&"
    text = json.dumps(found | {"name": bad, "entry": bad}).replace("shapes-vqa", "x<img src=y onerror=z>")
    hostile = json.loads(text)
    seen = Tags(page.html(hostile))
    assert "script" not in seen.tags
    assert all(one.startswith(("data:image/jpeg;base64,", "#")) for one in seen.addresses)
    assert "\u202e" not in page.html(hostile)


@pytest.mark.slow
def test_the_command_writes_the_page_and_says_where(command: Any, tmp_path: Path) -> None:
    raw = document(4, steps=2)
    raw["tasks"] = raw["tasks"][:1]
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(raw))
    assert command("submit", "one.yaml", "-q").returncode == 0
    done = command("analyze", "tiny-4", "--images", 4, "--json", "-q")
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").glob("*-seed0")
    assert json.loads(done.stdout) == json.loads((folder / "analysis" / "analysis.json").read_bytes())
    assert "analysis.html" in done.stderr
    assert {one["part"] for one in json.loads(done.stdout)["left_out"]} == {"similarity", "interaction"}
    shutil.rmtree(folder)
    missing = command("analyze", "tiny-4")
    assert missing.returncode == 2
    assert missing.stderr.count("\n") == 1
    assert "--runs" in missing.stderr


def test_images_are_evenly_spaced_with_both_ends() -> None:
    assert evenly(10, 4).tolist() == [0, 3, 6, 9]
    assert evenly(3, 9).tolist() == [0, 1, 2]
    assert evenly(5, 1).tolist() == [0]
