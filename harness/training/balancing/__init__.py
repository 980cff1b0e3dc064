"""Loss balancing: how the tasks' losses become one. One short file each, one line here."""

BALANCING: dict[str, str] = {
    "equal": "harness.training.balancing.weighted:Equal",
    "manual": "harness.training.balancing.weighted:Manual",
    "uncertainty": "harness.training.balancing.uncertainty:Uncertainty",
}
