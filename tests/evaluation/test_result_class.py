from __future__ import annotations

import subprocess
import sys

import pytest

from harness.errors import HarnessError
from harness.evaluation import RESULTS, Result, result_class


@pytest.mark.parametrize("metric", RESULTS)
def test_every_named_metric_is_a_result_that_states_its_own_name(metric: str) -> None:
    found = result_class(metric)
    assert issubclass(found, Result)
    assert found.metric == metric
    assert found.version >= 1


def test_a_misspelt_metric_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(HarnessError, match="'coco_box' is not a metric; did you mean 'coco_bbox'"):
        result_class("coco_box")


def test_the_evaluator_needs_no_torch_and_loads_numba_only_with_the_metrics_that_use_it() -> None:
    code = (
        "import sys, harness.evaluation.vqa, harness.evaluation.classification, harness.evaluation.resampling\n"
        "assert 'numba' not in sys.modules\n"
        "import harness.evaluation.detection, harness.evaluation.segmentation\n"
        "assert 'torch' not in sys.modules and 'pycocotools' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
