"""What placeholder tokens are trained for beside the tasks. One short file each, one line here.

``adversarial`` is not here: it is a second pass of the whole step (`harness.training.placeholders.adversarial`).
"""

OBJECTIVES: dict[str, str] = {
    "alignment": "harness.training.placeholders.objectives.alignment:Alignment",
    "auxiliary": "harness.training.placeholders.objectives.auxiliary:auxiliary",
    "discriminator": "harness.training.placeholders.objectives.discriminator:Discriminator",
    "distilled": "harness.training.placeholders.objectives.distilled:Distilled",
    "self_supervised": "harness.training.placeholders.objectives.masked_features:MaskedFeatures",
}
