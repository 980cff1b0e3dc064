"""Heads: one file per task, one line here. Each maps a task's features to losses and to predictions."""

HEADS: dict[str, str] = {
    "classification": "harness.models.heads.classification:ClassificationHead",
    "detection": "harness.models.heads.detection:FcosHead",
    "segmentation": "harness.models.heads.segmentation:FcnHead",
    "vqa": "harness.models.heads.vqa:VqaHead",
}
