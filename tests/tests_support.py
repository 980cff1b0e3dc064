"""A tiny submission and tiny random batches, for tests of several packages."""

from __future__ import annotations

from typing import Any

import torch

from harness.data.batches import Batch, ClassificationBatch, DetectionBatch, SegmentationBatch, VqaBatch


def document(count: int = 4, steps: int = 6) -> dict[str, Any]:
    return {
        "name": f"tiny-{count}",
        "model": {
            "backbone": {"name": "test_resnet"},
            "neck": {"channels": 32, "strides": [8, 16]},
            "text": {"width": 16, "heads": 2},
            "placeholders": {"count": count, "width": 16, "attention_width": 8, "heads": 2},
            "heads": {"detection": {"convolutions": 1}, "vqa": {"width": 16, "heads": 2, "layers": 1, "stride": 8}},
        },
        "tasks": [
            {"dataset": "shapes-classification", "batch_size": 4, "image_size": 64, "flip": 0.5},
            {"dataset": "shapes-detection", "batch_size": 2, "image_size": 64, "flip": 0.5},
            {"dataset": "shapes-segmentation", "batch_size": 2, "image_size": 64, "crop": 0.5},
            {"dataset": "shapes-vqa", "batch_size": 2, "image_size": 64, "questions": 3},
        ],
        "training": {
            "steps": steps,
            "optimizer": {"learning_rate": 0.003},
            "checkpoint_every": 1,
            "log_every": 2,
        },
        "tracking": {"wandb": "disabled"},
    }


def batches() -> dict[str, Batch]:
    """Random batches: classification of 5 classes, detection of 3, segmentation of 4, VQA of 7 answers, 10 words."""
    generator = torch.Generator().manual_seed(0)

    def common(count: int) -> dict[str, Any]:
        images = torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=generator)
        return {"ids": tuple(map(str, range(count))), "images": images, "sizes": torch.tensor([[48, 80]] * count)}

    box = torch.tensor([[4.0, 4, 30, 30], [20, 20, 60, 44]])
    return {
        "c": ClassificationBatch(**common(3), labels=torch.tensor([0, 4, 2])),
        "d": DetectionBatch(**common(2), boxes=(box, box[:0]), labels=(torch.tensor([0, 2]), torch.tensor([]).long())),
        "s": SegmentationBatch(**common(2), masks=torch.randint(0, 4, (2, 64, 64), generator=generator)),
        "v": VqaBatch(
            **common(2),
            question_ids=torch.arange(3),
            image_index=torch.tensor([0, 0, 1]),
            words=torch.tensor([[2, 3, 0], [4, 0, 0], [5, 6, 11]]),
            targets=torch.rand(3, 7, generator=generator),
        ),
    }
