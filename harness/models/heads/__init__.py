"""Heads: one file each, one line here. Each maps a task's features to losses and to predictions."""

HEADS: dict[str, str] = {
    "linear": "harness.models.heads.classification:LinearHead",
    "zero_shot": "harness.models.heads.zero_shot:ZeroShotHead",
    "fcos": "harness.models.heads.fcos:FcosHead",
    "faster_rcnn": "harness.models.heads.faster_rcnn:FasterRcnnHead",
    "fcn": "harness.models.heads.segmentation:FcnHead",
    "upernet": "harness.models.heads.upernet:UperNetHead",
    "look": "harness.models.heads.vqa:LookHead",
    "co_attention": "harness.models.heads.co_attention:CoAttentionHead",
}
