"""The workflow that takes pull requests for a public board: what it allows, and what it never does."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

GITHUB = Path(__file__).parents[1] / ".github"


def workflow() -> dict[Any, Any]:
    content: dict[Any, Any] = yaml.safe_load((GITHUB / "workflows" / "leaderboard.yml").read_text())
    return content


def steps() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = workflow()["jobs"]["check"]["steps"]
    return found


def test_it_runs_with_a_read_only_token_on_events_without_secrets() -> None:
    assert workflow()["permissions"] == {"contents": "read"}
    assert list(workflow()[True]) == ["pull_request"]  # YAML 1.1 reads the key `on` as true
    assert "secrets." not in (GITHUB / "workflows" / "leaderboard.yml").read_text()


def test_actions_and_packages_have_fixed_versions() -> None:
    actions = [step["uses"] for step in steps() if "uses" in step]
    assert actions
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action) for action in actions)
    pins = (GITHUB / "leaderboard-requirements.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", pin) for pin in pins if not pin.startswith("#"))


def test_no_text_of_a_pull_request_becomes_part_of_a_script() -> None:
    scripts = [step["run"] for step in steps() if "run" in step]
    assert all("${{" not in script for script in scripts)
    for script in scripts:
        subprocess.run(["bash", "-n", "-c", script], check=True)
    harness = [line for script in scripts for line in script.splitlines() if "python" in line]
    assert [line.split()[3:5] for line in harness] == [["leaderboard", "add"], ["leaderboard", "--verify"]]


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def link(pull: Path) -> None:
    (pull / "bundles" / "link.zip").symlink_to("/etc/passwd")


PULLS: dict[str, tuple[Callable[[Path], Any], bool]] = {
    "a new bundle": (lambda pull: (pull / "bundles" / "mine.zip").write_bytes(b"x"), True),
    "nothing": (lambda pull: None, False),
    "another file": (lambda pull: (pull / "conftest.py").write_text("import os"), False),
    "another suffix": (lambda pull: (pull / "bundles" / "setup.py").write_text("import os"), False),
    "a folder below": (
        lambda pull: ((pull / "bundles" / "x").mkdir(), (pull / "bundles/x/a.zip").write_bytes(b"x")),
        False,
    ),
    "a changed bundle": (lambda pull: (pull / "bundles" / "old.zip").write_bytes(b"y"), False),
    "a removed bundle": (lambda pull: (pull / "bundles" / "old.zip").unlink(), False),
    "a link": (link, False),
    "a name with a line break": (lambda pull: (pull / "bundles" / "a\nb.zip").write_bytes(b"x"), False),
    "a name that is an option": (lambda pull: (pull / "bundles" / "-x.zip").write_bytes(b"x"), False),
}


@pytest.mark.parametrize("what", PULLS)
def test_a_pull_request_may_add_bundles_and_nothing_else(tmp_path: Path, what: str) -> None:
    change, allowed = PULLS[what]
    base, pull = tmp_path / "server" / "board", tmp_path / "pull"
    (base / "bundles").mkdir(parents=True)
    (base / "bundles" / "old.zip").write_bytes(b"x")
    git(base, "init", "-q")
    git(base, "add", "-A")
    git(base, "commit", "-qm", "base")
    git(tmp_path, "clone", "-q", str(base), str(pull))
    change(pull)
    git(pull, "add", "-A")
    git(pull, "commit", "-q", "--allow-empty", "-m", "pull request")
    (script,) = [step["run"] for step in steps() if step.get("name", "").startswith("New bundles")]
    environment = {
        "BASE": git(base, "rev-parse", "HEAD"),
        "HEAD": git(pull, "rev-parse", "HEAD"),
        "SOURCE": str(base),
        "GITHUB_WORKSPACE": str(tmp_path),
    }
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == (0 if allowed else 1), done.stderr
    if allowed:
        assert (tmp_path / "bundles.txt").read_text() == f"{tmp_path}/pull/bundles/mine.zip\n"
