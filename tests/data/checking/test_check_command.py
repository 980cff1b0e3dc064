"""``harness data check`` and ``harness data ls`` as people use them."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cards import DatasetCard
from harness.data import ADAPTERS
from harness.data.checking import CODES
from harness.data.checking.check import PLANNERS
from harness.data.checking.presence import data_sets

REAL = Path(os.environ.get("HARNESS_DATA") or "absent")
SHAPES = [f"shapes-{task}" for task in ("classification", "detection", "segmentation", "vqa")]


@pytest.fixture
def run(tmp_path: Path, cache: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run the real command."""

    def start(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "harness", "data", *map(str, arguments)],
            cwd=tmp_path,
            env=os.environ | {"COLUMNS": "150", "HARNESS_CACHE": str(cache)} | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return start


@pytest.fixture
def card_file(tmp_path: Path, class_folders: DatasetCard) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(class_folders.model_dump_json())
    return path


def test_exit_codes_are_0_when_clean_1_with_findings_and_2_without_data(
    run: Callable[..., "subprocess.CompletedProcess[str]"], card_file: Path, root: Path
) -> None:
    clean = run("check", card_file)
    assert clean.returncode == 0, clean.stderr
    assert clean.stdout.count("no findings") == 2
    (root / "val/ant/0.jpg").write_bytes(b"")
    wrong = run("check", card_file)
    assert wrong.returncode == 1
    assert "image-truncated" in wrong.stdout
    assert "val/ant/0.jpg" in wrong.stdout
    (root / "train").rename(root / "elsewhere")
    (root / "val").rename(root / "elsewhere/val")
    absent = run("check", card_file)
    assert absent.returncode == 2
    assert absent.stderr.splitlines()[-1].startswith("error: card tiny:")
    assert "make it" in absent.stderr


def test_json_holds_every_finding(
    run: Callable[..., "subprocess.CompletedProcess[str]"], card_file: Path, root: Path
) -> None:
    (root / "val/ant/0.jpg").write_bytes(b"")
    result = run("check", card_file, "--json", "-q")
    assert result.returncode == 1
    assert result.stderr == ""
    document = json.loads(result.stdout)
    (finding,) = document["findings"]
    assert finding.pop("message").startswith("cannot be decoded")
    assert finding == {
        "severity": "error",
        "code": "image-truncated",
        "card": "tiny",
        "split": "val",
        "file": "val/ant/0.jpg",
        "id": "ant/0.jpg",
    }
    assert document["summary"] == {
        "clean": False,
        "errors": 1,
        "warnings": 0,
        "notes": 0,
        "by_code": {"image-truncated": 1},
    }
    assert document["cards"][0]["splits"]["val"]["counts"] == {"images": 2, "classes": 2}


def test_all_prints_every_finding_and_names_cannot_steer_the_terminal(
    run: Callable[..., "subprocess.CompletedProcess[str]"], card_file: Path, root: Path
) -> None:
    for number in range(5):
        (root / f"train/ant/\x1b[2Jx{number}.jpg").write_bytes(b"")
    short, whole = run("check", card_file), run("check", card_file, "--all")
    assert "and 2 more" in short.stdout
    assert [f"x{n}.jpg" in short.stdout for n in range(5)] == [True, True, True, False, False]
    assert all(f"error image-truncated train train/ant/x{n}.jpg" in whole.stdout for n in range(5))
    assert "\x1b[2J" not in short.stdout + whole.stdout


def test_the_check_imports_no_torch(card_file: Path, cache: Path) -> None:
    code = (
        "import sys\n"
        "from harness.cards import load_card\n"
        "from harness.data import checking\n"
        f"assert checking.check([load_card({str(card_file)!r})], workers=0).clean\n"
        "import harness.data.checking.printing, harness.data.checking.presence\n"
        "assert not {'torch', 'torchvision', 'timm', 'numba'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_layout_that_can_be_read_can_be_checked() -> None:
    assert set(PLANNERS) == set(ADAPTERS)


def test_the_documentation_lists_every_code_with_its_severity() -> None:
    text = (Path(__file__).parents[3] / "docs" / "data-check.md").read_text()
    listed = dict(re.findall(r"^\| `([a-z-]+)` \| (error|warning|note) \|", text, re.MULTILINE))
    assert listed == {name: code.severity for name, code in CODES.items()}


def test_a_card_named_twice_is_refused(run: Callable[..., "subprocess.CompletedProcess[str]"], card_file: Path) -> None:
    result = run("check", card_file, card_file)
    assert result.returncode == 2
    assert "twice" in result.stderr


def test_the_embedded_suite_is_clean_and_shares_no_images_between_training_and_evaluation(
    tiny_cache: Path, run: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    result = run("check", *SHAPES, "--json", HARNESS_CACHE=str(tiny_cache))
    document = json.loads(result.stdout)
    # The tiny copy has fewer images than the cards state, so few that a class may be missing from training.
    assert set(document["summary"]["by_code"]) <= {"count-differs", "class-without-training"}
    assert len([f for f in document["findings"] if f["code"] == "count-differs"]) == 12


MINI = {"imagenet-mini": "imagenet", "coco-mini": "coco", "camvid-mini": "cityscapes", "daquar-mini": "vqa"}


@pytest.mark.skipif(
    not all((REAL / folder).is_dir() for folder in MINI.values()),
    reason="HARNESS_DATA does not hold the small real data",
)
def test_the_small_real_data_sets_have_the_findings_they_have(
    run: Callable[..., "subprocess.CompletedProcess[str]"],
) -> None:
    result = run("check", *MINI, "--json")
    document = json.loads(result.stdout)
    assert result.returncode == 1
    # 50 training images do not show all 80 categories; nothing else is wrong.
    assert {(f["code"], f["card"]) for f in document["findings"]} == {("class-without-training", "coco-mini")}
    assert {f["id"] for f in document["findings"]} == {
        *("airplane", "banana", "bus", "carrot", "couch", "giraffe", "sheep", "suitcase", "tie", "traffic light")
    }


def rows_of(monkeypatch: pytest.MonkeyPatch, card_file: Path, name: str = "tiny") -> dict[str, object]:
    monkeypatch.setenv("HARNESS_CARDS", str(card_file.parent))
    (row,) = data_sets(name)
    return row


def test_the_listing_tells_what_is_present(
    monkeypatch: pytest.MonkeyPatch, card_file: Path, root: Path, class_folders: DatasetCard
) -> None:
    assert rows_of(monkeypatch, card_file)["present"] == "yes"
    (root / "val/ant/0.jpg").unlink()
    row = rows_of(monkeypatch, card_file)
    assert row["present"] == "partly"
    assert row["splits"] == {
        "train": {"present": "yes", "images": 4, "size": 4, "missing": []},
        "val": {"present": "partly", "images": 1, "size": 2, "missing": []},
    }
    root.rename(root.parent / "away")
    assert rows_of(monkeypatch, card_file)["present"] == "no"


def test_the_listing_names_missing_annotation_files_and_survives_broken_cards(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path, coco: DatasetCard
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(coco.model_dump_json())
    (tmp_path / "tiny-broken.yaml").write_text("name: [")
    (root / "val.json").unlink()
    monkeypatch.setenv("HARNESS_CARDS", str(tmp_path))
    row, broken = data_sets("tiny")
    assert row["present"] == "partly"
    assert row["splits"]["val"] == {"present": "partly", "images": 2, "size": 2, "missing": ["val.json"]}
    assert broken["present"] == "no"
    assert "tiny-broken.yaml" in broken["about"]


def test_the_listing_is_printed_with_present_data_first(
    run: Callable[..., "subprocess.CompletedProcess[str]"], card_file: Path, tmp_path: Path
) -> None:
    environment = {"HARNESS_CARDS": str(tmp_path), "HARNESS_DATA": str(tmp_path / "nowhere")}
    table = run("ls", **environment)
    assert table.returncode == 0, table.stderr
    assert table.stdout.index("tiny") < table.stdout.index("coco2017")
    rows = json.loads(run("ls", "--json", "--filter", "coco2", **environment).stdout)
    assert [(row["name"], row["present"]) for row in rows] == [("coco2014", "no"), ("coco2017", "no")]
    del environment["HARNESS_DATA"]
    unset = run("ls", "--json", "--filter", "coco2017", HARNESS_DATA="")
    assert json.loads(unset.stdout)[0]["path"] == "${HARNESS_DATA}/coco2017"
