"""Image backbones: one file per library, one line here."""

BACKBONES: dict[str, str] = {
    "timm": "harness.models.backbones.timm_models:TimmBackbone",
}
