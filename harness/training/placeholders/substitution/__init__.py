"""Substitution of a task's features by another task's output: one file per strategy, one line here."""

STRATEGIES: dict[str, str] = {
    "random": "harness.training.placeholders.substitution.random_source:RandomSource",
    "cross_validation": "harness.training.placeholders.substitution.cross_validation:CrossValidation",
    "progressive": "harness.training.placeholders.substitution.progressive:Progressive",
    "adaptive": "harness.training.placeholders.substitution.adaptive:Adaptive",
}
