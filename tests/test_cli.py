"""The command line as strangers use it: what it prints, its exit codes, and that bad input costs nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from tests_support import document
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import HarnessError
from harness.submission import load_submission

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def refused(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Exit code 2, one line, no traceback, and the line says all of `parts`."""
    assert result.returncode == 2, result.stdout + result.stderr
    lines = [line for line in result.stderr.splitlines() if line]
    assert lines[-1].startswith("error: ")
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in lines[-1], lines[-1]


def test_import_and_help_do_not_import_torch() -> None:
    code = (
        "import sys, harness, harness.cli\n"
        "from typer.testing import CliRunner\n"
        "data = [['data', verb] for verb in ('make', 'check', 'ls', 'shard')]\n"
        "for verb in ([], ['submit'], ['compare'], ['demo'], ['validate'], *data):\n"
        "    result = CliRunner().invoke(harness.cli.app, [*verb, '--help'])\n"
        "    assert result.exit_code == 0 and 'Usage' in result.output\n"
        "assert 'torch' not in sys.modules and 'timm' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("verb", "default"),
    [
        ("submit", "one per GPU, or one"),
        ("analyze", "its first"),
        ("analyze", "analysis in the run's folder"),
        ("data check", "one per CPU"),
        ("leaderboard add", "default: leaderboard"),
    ],
)
def test_help_tells_defaults_that_are_found_out_later(verb: str, default: str) -> None:
    result = CliRunner().invoke(app, [*verb.split(), "--help"], env={"COLUMNS": "200"})
    assert default in result.output, result.output


def test_a_split_is_packed_into_shards_that_a_card_can_name(command: Command, tmp_path: Path) -> None:
    done = command("data", "shard", "shapes-vqa", "val", "--to", "shards", "--images", "3", "-q")
    assert done.returncode == 0, done.stderr
    assert "splits: {val: {images: 'val-{000000..000001}.tar', ...}}" in done.stdout
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == ["val-000000.tar", "val-000001.tar"]
    again = command("data", "shard", "shapes-vqa", "val", "--to", "shards")
    assert again.returncode == 2
    assert "holds shards of val already" in again.stderr
    assert command("data", "shard", "shapes-vqa", "vall", "--to", "x").stderr.count("did you mean 'val'") == 1


def test_a_folder_that_cannot_be_written_is_told_in_one_sentence_before_training(
    command: Command, tiny_submission: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    refused(command("submit", tiny_submission, "--leaderboard", "file"), "file/records: cannot be")
    assert not list(tmp_path.rglob("*.safetensors"))
    refused(command("submit", tiny_submission, "--runs", "file"), "file/", "cannot be written")
    refused(command("data", "shard", "shapes-vqa", "val", "--to", "file"), "file: cannot be written")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("option", [(), ("--json",)])
def test_an_output_that_is_full_is_told_in_one_sentence(tmp_path: Path, option: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "harness", "ls", "heads", *option]
        done = subprocess.run(words, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)
    assert "error: output: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_board_that_is_not_there_is_not_made_by_a_slip_of_the_pen(command: Command, tmp_path: Path) -> None:
    refused(command("leaderboard", "--leaderboard", "leaderbord"), "leaderbord: there is no such folder")
    assert not (tmp_path / "leaderbord").exists()


def test_problems_of_a_board_do_not_stand_in_its_json(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["leaderboard", "--verify", "--json", "--leaderboard", str(tmp_path / "none")])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "cannot be read" in result.stderr


def test_a_terminal_without_unicode_gets_question_marks(command: Command) -> None:
    done = command("ls", "balancing", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "?" in done.stdout
    assert done.stdout.isascii()


def test_the_board_is_made_without_torch(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    code = (
        "import sys, harness\n"
        f"harness.leaderboard({str(tmp_path)!r} and __import__('pathlib').Path({str(tmp_path)!r}))\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "index.html").exists()


def test_an_unknown_key_is_refused_with_the_key_that_was_meant(command: Command, tmp_path: Path) -> None:
    raw = document()
    raw["model"]["backbone"]["nmae"] = raw["model"]["backbone"].pop("name")
    result = command("submit", write(tmp_path / "a.yaml", raw))
    refused(result, "a.yaml", "model.backbone.nmae", "did you mean 'name'?")
    assert not (tmp_path / "leaderboard").exists()
    assert not (tmp_path / "runs").exists()


def test_a_wrong_type_is_refused_with_field_and_value(command: Command, tmp_path: Path) -> None:
    raw = document()
    raw["training"]["steps"] = "many"
    refused(command("submit", write(tmp_path / "a.yaml", raw)), "a.yaml", "training.steps", "'many'")


def test_an_unknown_backbone_is_refused_with_the_name_that_was_meant(command: Command, tmp_path: Path) -> None:
    raw = document()
    raw["model"]["backbone"]["name"] = "resent50"
    refused(command("submit", write(tmp_path / "a.yaml", raw)), "model.backbone.name", "'resent50'", "'resnet50'")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ("model.sharing.name=hrad", ("'hrad'", "did you mean 'hard'?", "harness ls sharing")),
        ("training.balancing.name=equall", ("'equall'", "did you mean 'equal'?")),
        ("training.regime.name=jiont", ("'jiont'", "did you mean 'joint'?")),
        ("tasks.0.dataset=shapes-detectoin", ("'shapes-detectoin'", "did you mean 'shapes-detection'?")),
        ("tasks.9.dataset=x", ("--set", "'9'")),
        ("training.steps", ("--set", "key.subkey=value")),
        ("model.neck.channels=33", ("33", "multiple of 32")),
        ("model.neck.strides=[3]", ("stride",)),
        ("seeds=[1,1]", ("seeds", "twice")),
        ("tasks.0.weight=2", ("weight", "manual")),
        ("name=../evil", ("name",)),
        ("training.optimizer.learning_rate=.nan", ("learning_rate",)),
    ],
)
def test_bad_values_are_refused_in_one_sentence(
    command: Command, tmp_path: Path, change: str, parts: tuple[str, ...]
) -> None:
    refused(command("validate", write(tmp_path / "a.yaml", document()), "--set", change), *parts)


def test_missing_data_is_refused_with_the_way_to_get_it(command: Command, tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", document())
    refused(command("submit", path, HARNESS_CACHE=str(tmp_path / "empty")), "shapes-", "harness data make shapes")


def test_a_data_folder_that_is_not_set_is_refused_with_the_variable(command: Command, tmp_path: Path) -> None:
    raw = document()
    raw["tasks"] = [{"dataset": "imagenet", "batch_size": 2, "image_size": 64}]
    result = command("submit", write(tmp_path / "a.yaml", raw), HARNESS_DATA="")
    refused(result, "imagenet", "HARNESS_DATA")


def test_an_unreadable_image_stops_the_run_with_its_name(command: Command, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for label in ("a", "b"):
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            Image.new("RGB", (20, 16)).save(folder / "0.png")
    broken = tmp_path / "data" / "train" / "b" / "0.png"
    broken.write_bytes(broken.read_bytes()[:40])  # within the header of the pixel data
    card = {
        "name": "mine", "version": "1", "title": "mine", "task": "classification", "adapter": "imagefolder",
        "root": str(tmp_path / "data"), "splits": {"train": {"images": "train"}, "val": {"images": "val"}},
        "license": "none", "how_to_get": "make it",
    }  # fmt: skip
    write(tmp_path / "mine.yaml", card)
    raw = document()
    raw["tasks"] = [{"dataset": "mine", "batch_size": 2, "image_size": 32}]
    refused(command("submit", write(tmp_path / "a.yaml", raw), HARNESS_CARDS=str(tmp_path)), str(broken))
    assert not list((tmp_path / "leaderboard").rglob("*.json"))


def test_a_record_of_a_newer_schema_is_refused_and_nothing_is_touched(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "leaderboard" / "records" / "new" / "0123456789ab-seed0"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text('{"schema_version": 99}')
    for verb in (["leaderboard"], ["compare", "a", "b"], ["submit", write(tmp_path / "a.yaml", document())]):
        refused(command(*verb), "record.json", "schema_version", "99")
    assert sorted(p.name for p in (tmp_path / "leaderboard").rglob("*") if p.is_file()) == ["record.json"]
    assert not (tmp_path / "runs").exists()


def test_ls_lists_what_can_be_named_as_a_table_and_as_json(command: Command) -> None:
    here = CliRunner(env={"COLUMNS": "200"})
    for kind in ("datasets", "sharing", "balancing", "regimes", "heads", "placeholders"):
        rows = json.loads(here.invoke(app, ["ls", kind, "--json"]).stdout)
        table = here.invoke(app, ["ls", kind]).stdout
        assert rows
        assert all(row["name"] in table for row in rows)
    names = {row["name"] for row in json.loads(command("ls", "backbones", "--json", "--filter", "resnet5").stdout)}
    assert {"resnet50", "resnet50d"} <= names
    refused(command("ls", "datsets"), "'datsets'", "did you mean 'datasets'?")


def test_validate_looks_at_all_files_and_tells_each_that_is_refused(command: Command, tmp_path: Path) -> None:
    good = write(tmp_path / "good.yaml", document())
    typing_error = write(tmp_path / "typo.yaml", document() | {"sedes": [0]})
    raw = document()
    raw["tasks"] = [{"dataset": "imagenet", "batch_size": 2, "image_size": 64}]
    without_data = write(tmp_path / "data.yaml", raw)
    result = command("validate", typing_error, without_data, good, "--json", HARNESS_DATA="")
    assert result.returncode == 2
    assert [report["name"] for report in json.loads(result.stdout)] == [document()["name"]]
    first, second = result.stderr.splitlines()
    assert first.startswith(f"error: {typing_error}: ")
    assert "did you mean 'seeds'" in first
    assert second.startswith(f"error: {without_data}: ")
    assert "HARNESS_DATA" in second


def test_validate_reports_parameters_sizes_macs_and_sites(command: Command, tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", document())
    (report,) = json.loads(command("validate", path, "--json").stdout)
    assert report["submission"] == load_submission(path).resolved()
    assert report["parameters"]["placeholders"] > 0
    assert [task["train_images"] for task in report["tasks"]] == [24] * 4
    assert all(task["macs"] > 1e6 for task in report["tasks"])
    assert report["sites"] == ["backbone.layer3", "backbone.layer4", "text", "vqa.image", "vqa.question"]
    text = command("validate", path).stdout
    assert "backbone.layer4" in text
    assert f"{report['parameters']['placeholders']:,}" in text


def test_validate_prints_the_whole_submission_with_every_default(command: Command, tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", document())
    done = command("validate", path, path, "--resolved", "--set", "training.steps=7")
    assert done.returncode == 0, done.stderr
    first, second = yaml.safe_load_all(done.stdout)
    assert first == second == load_submission(path, ["training.steps=7"]).resolved()
    assert first["training"]["optimizer"] == {
        "name": "adamw",
        "learning_rate": 0.003,
        "weight_decay": 0.05,
        "momentum": 0.9,
        "layer_decay": 1.0,
    }
    again = write(tmp_path / "again.yaml", first)
    assert load_submission(again).fingerprint() == load_submission(path, ["training.steps=7"]).fingerprint()


@pytest.mark.parametrize("words", [["a.yaml"], ["--set", "seeds=[1]"], ["--resolved"]])
def test_the_schema_is_that_of_all_submissions(words: list[str]) -> None:
    result = CliRunner().invoke(app, ["validate", "--schema", *words])
    assert isinstance(result.exception, HarnessError)
    assert f"--schema: is the same for all submissions; leave out {words[0]}" in str(result.exception)


def test_every_shipped_submission_passes_its_schema() -> None:
    from harness.cards import shipped
    from harness.submission import load_submission

    files = sorted(shipped("baselines").glob("*.yaml"))
    assert len(files) >= 4
    for file in files:
        submission = load_submission(file)
        assert submission.name == file.stem
        submission.fingerprint()


def test_a_run_is_scored_recorded_shown_and_compared_through_the_command_line(command: Command, tmp_path: Path) -> None:
    model, control = (write(tmp_path / f"{n}.yaml", document(count)) for n, count in (("model", 4), ("control", 0)))
    first = command("submit", model, control, "--json", "--seeds", "3", "--set", "tracking.wandb=offline")
    assert first.returncode == 0, first.stderr
    records = json.loads(first.stdout)
    assert [record["name"] for record in records] == ["tiny-4", "tiny-0"]
    assert all(record["seed"] == 3 for record in records)
    assert {task["main"] for task in records[0]["tasks"].values()} == {"top1", "AP", "miou", "accuracy"}
    assert list((tmp_path / "runs").glob("*/wandb/offline-run-*"))

    board = tmp_path / "leaderboard"
    files = ("board.json", "README.md", "index.html")
    before = {name: (board / name).read_bytes() for name in files}
    assert command("leaderboard", "--verify").returncode == 0
    assert {name: (board / name).read_bytes() for name in files} == before
    assert "tiny-4" in before["README.md"].decode()
    pictures = {f"shapes-{task}.webp" for task in ("classification", "detection", "segmentation", "vqa")}
    for folder in (path.parent for path in board.rglob("record.json")):
        assert {path.name for path in folder.iterdir()} == {"record.json", "statistics.npz", "gallery.json", *pictures}

    comparison = json.loads(command("compare", "tiny-4", "tiny-0", "--json").stdout)
    assert len(comparison["tasks"]) == 4
    for task in comparison["tasks"]:
        assert task["paired"]["difference"] == pytest.approx(task["a"]["value"] - task["b"]["value"])
        assert task["paired"]["low"] <= task["paired"]["high"]
    shown = command("compare", "tiny-4", "tiny-0").stdout
    assert "95% interval" in shown
    refused(command("compare", "tiny-4", "tiny-9"), "tiny-9")

    stored = {p: p.read_bytes() for p in board.rglob("record.json")}
    again = command("submit", model, "--seeds", "3", "--set", "tracking.wandb=disabled")
    assert "already on the board" in again.stderr
    assert {p: p.read_bytes() for p in board.rglob("record.json")} == stored

    record = next(path for path in stored if "tiny-4" in str(path))
    changed = json.loads(record.read_text())
    task = changed["tasks"]["shapes-detection"]
    task["metrics"]["AP"] = 0.99
    record.write_text(json.dumps(changed))
    result = command("leaderboard", "--verify")
    assert result.returncode == 1
    assert "AP" in result.stdout


def test_predictions_of_a_run_score_to_the_same_numbers(command: Command, tmp_path: Path) -> None:
    result = command("submit", write(tmp_path / "a.yaml", document()), "--json")
    assert result.returncode == 0, result.stderr
    (record,) = json.loads(result.stdout)
    (run,) = (tmp_path / "runs").iterdir()
    for card, suffix in (("classification", ".npz"), ("detection", ".json"), ("segmentation", ""), ("vqa", ".json")):
        name = f"shapes-{card}"
        scored = command("score", name, run / "predictions" / f"{name}{suffix}", "--name", f"again-{card}", "--json")
        assert scored.returncode == 0, scored.stderr
        task = json.loads(scored.stdout)["tasks"][name]
        assert task["metrics"] == record["tasks"][name]["metrics"]
        assert task["statistics"] == record["tasks"][name]["statistics"]
        assert task["protocol"] == record["tasks"][name]["protocol"]


def test_a_limited_run_is_marked_and_not_ranked(command: Command, tmp_path: Path) -> None:
    result = command("submit", write(tmp_path / "a.yaml", document(steps=50)), "--limit", "3", "--json")
    (record,) = json.loads(result.stdout)
    assert not record["rankable"]
    assert record["cost"]["steps"] == 3
    assert all(task["images"] == 3 for task in record["tasks"].values())
    assert "limited to 3" in (tmp_path / "leaderboard" / "README.md").read_text()


def test_the_committed_json_schema_is_the_schema(command: Command) -> None:
    from harness.cards import shipped
    from harness.submission import json_schema

    committed = shipped("baselines").parent / "docs" / "submission.schema.json"
    assert json.loads(committed.read_text()) == json_schema()
    assert json.loads(command("validate", "--schema").stdout) == json_schema()


def test_shipped_submissions_pass_the_json_schema_and_misspelt_ones_do_not() -> None:
    import jsonschema

    from harness.cards import shipped
    from harness.documents import load_yaml
    from harness.submission import json_schema

    validator = jsonschema.Draft202012Validator(json_schema())
    for file in sorted(shipped("baselines").glob("*.yaml")):
        assert validator.is_valid(load_yaml(file)), file
    raw = document()
    raw["trainning"] = {}
    assert not validator.is_valid(raw)


def test_a_run_that_was_submitted_with_a_bundle_is_rescored_by_whoever_gets_it(
    command: Command, tmp_path: Path
) -> None:
    submitted = command("submit", write(tmp_path / "a.yaml", document(0)), "--bundle", "a.zip", "--json")
    assert submitted.returncode == 0, submitted.stderr
    (record,) = json.loads(submitted.stdout)
    added = command("leaderboard", "add", "a.zip", "--leaderboard", "theirs", "--json")
    assert added.returncode == 0, added.stderr
    outcome = json.loads(added.stdout)["a.zip"]
    assert (outcome["problems"], outcome["notes"]) == ([], [])
    (path,) = (tmp_path / "theirs").rglob("record.json")
    stored = json.loads(path.read_text())
    assert stored["trust"] == "rescored"
    assert stored["tasks"] == record["tasks"]
