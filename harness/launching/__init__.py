"""Fanning submissions out: every (submission, seed) is one idempotent command, run wherever a launcher puts it."""

LAUNCHERS: dict[str, str] = {
    "local": "harness.launching.local:LocalLauncher",
    "slurm": "harness.launching.slurm:SlurmLauncher",
    "ray": "harness.launching.ray_cluster:RayLauncher",
}
