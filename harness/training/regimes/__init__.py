"""Regimes: which tasks each step trains. One short file each, one line here."""

REGIMES: dict[str, str] = {
    "joint": "harness.training.regimes.joint:joint",
    "mt_dnn": "harness.training.regimes.mt_dnn:mt_dnn",
    "continual": "harness.training.regimes.continual:continual",
    "sequential": "harness.training.regimes.sequential:sequential",
    "curriculum": "harness.training.regimes.curriculum:curriculum",
}
