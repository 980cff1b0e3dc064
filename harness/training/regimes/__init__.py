"""Regimes: which tasks each step trains. One short file each, one line here."""

REGIMES: dict[str, str] = {
    "joint": "harness.training.regimes.joint:joint",
}
