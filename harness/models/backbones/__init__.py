"""Image backbones: one file per library, one line here."""

BACKBONES: dict[str, str] = {
    "timm": "harness.models.backbones.timm_models:TimmBackbone",
    "torchvision": "harness.models.backbones.torchvision_models:TorchvisionBackbone",
    "open_clip": "harness.models.backbones.open_clip_models:OpenClipBackbone",
}
