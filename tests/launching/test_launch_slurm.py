"""Fanning out through submitit: onto its local executor, and onto stand-ins for Slurm's programs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests_support import document

pytest.importorskip("submitit")

Command = Callable[..., "subprocess.CompletedProcess[str]"]

# As on a cluster that hands nothing of the submitting shell on; PYTHONPATH stands for an installed package.
SBATCH = """#!/bin/bash
cp "$1" $SLURM/batch.sh
touch $SLURM/running
cd /
env -i PATH="$PATH" SLURM="$SLURM" PYTHONPATH="$PYTHONPATH" OMP_NUM_THREADS=1 SLURM_JOB_ID=1 SLURM_NTASKS=1 \\
  SLURM_JOB_NUM_NODES=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_JOB_NODELIST=node1 \\
  setsid bash $SLURM/controller.sh </dev/null >$SLURM/batch.log 2>&1 &
echo "Submitted batch job 1"
"""
CONTROLLER = """rm -f $SLURM/requeue
bash $SLURM/batch.sh
while [ -e $SLURM/requeue ]; do rm $SLURM/requeue; bash $SLURM/batch.sh; done
rm -f $SLURM/running
"""
SRUN = """#!/bin/bash
out=$3; err=$5
shift 5
echo $$ > $SLURM/pid
exec "$@" >> ${out//%[jt]/1} 2>> ${err//%[jt]/1}
"""
SACCT = """#!/bin/bash
echo "JobID|State|NodeList"
if [ -e $SLURM/running ]; then echo "1|RUNNING|node1"; else echo "1|COMPLETED|node1"; fi
"""
SCONTROL = """#!/bin/bash
touch $SLURM/requeue
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the state of a cluster of one machine, whose programs are on the path."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    (folder / "controller.sh").write_text(CONTROLLER)
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT, "scontrol": SCONTROL}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM", str(folder))
    return folder


@pytest.mark.slow
def test_a_job_that_slurm_preempts_is_requeued_and_ends_in_its_record(
    slurm: Path, tmp_path: Path, tiny_cache: Path
) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(document(steps=60)))
    options = ("slurm_partition=gpu", "timeout_min=90", "gpus_per_node=2", "slurm_setup=[export LOADED=cuda]")
    words = [word for option in options for word in ("--option", option)]
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "submit", "a.yaml", "--launcher", "slurm", *words, "--json"],
        cwd=tmp_path,
        env=os.environ | {"HARNESS_CACHE": str(tiny_cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("runs/*/checkpoint.pt")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(int((slurm / "pid").read_text()), signal.SIGUSR2)
    stdout, stderr = process.communicate(timeout=300)
    (log,) = tmp_path.glob("runs/launched/*.log")
    output = log.read_text()
    assert process.returncode == 0, (stderr, output)
    (record,) = json.loads(stdout)
    assert record["name"] == "tiny-4"
    assert output.count("\n== ") == 1  # the second attempt
    assert "interrupted; the work so far is kept" in output
    assert "resuming at step" in output
    script = (slurm / "batch.sh").read_text()
    for line in ("#SBATCH --partition=gpu", "#SBATCH --time=90", "#SBATCH --gpus-per-node=2", "export LOADED=cuda"):
        assert line in script.splitlines()


def test_what_sbatch_refuses_is_told_for_every_job(
    slurm: Path, command: Command, tmp_path: Path, tiny_submission: Path
) -> None:
    (slurm / "sbatch").write_text("#!/bin/bash\necho 'sbatch: error: invalid partition specified: gppu' >&2\nexit 1\n")
    words = ("--launcher", "slurm", "--option", "slurm_partition=gppu")
    result = command("submit", tiny_submission, "--seeds", "0,1", *words)
    assert result.returncode == 1
    told = [line for line in result.stderr.splitlines() if line.startswith("failed: ")]
    assert len(told) == 2
    assert all("invalid partition specified: gppu" in line for line in told), told


def test_without_slurm_the_launcher_says_so(command: Command, tmp_path: Path, tiny_submission: Path) -> None:
    result = command("submit", tiny_submission, "--launcher", "slurm", PATH="/nowhere")
    assert result.returncode == 2
    assert result.stderr.startswith("error: --launcher slurm: ")
    assert "slurm cluster" in result.stderr


@pytest.mark.slow
def test_submitits_local_executor_runs_jobs(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(document(steps=2)))
    words = ("submit", "a.yaml", "--launcher", "slurm", "--option", "cluster=local", "--json")
    result = command(*words)
    assert result.returncode == 0, result.stderr
    assert len(json.loads(result.stdout)) == 1
    again = command(*words)
    assert again.returncode == 0
    assert json.loads(again.stdout) == json.loads(result.stdout)
