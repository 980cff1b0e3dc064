"""Sharing architectures: how the tasks' networks share parameters. One short file each, one line here."""

SHARING: dict[str, str] = {
    "hard": "harness.models.sharing.hard:HardSharing",
}
