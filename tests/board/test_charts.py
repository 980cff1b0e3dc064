from __future__ import annotations

import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from harness.board.charts import forest_bar, interval_bar, line_plot, reach

ANY = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn")))


def coordinates(svg: str) -> list[float]:
    """Every coordinate of a drawing, after checking that it is well-formed."""
    found = []
    for element in ElementTree.fromstring(svg).iter():
        for name in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "points"):
            found += [float(number) for number in re.split("[ ,]", element.get(name, "")) if number]
    return found


@given(ANY, ANY, ANY, ANY, ANY)
def test_bars_stay_inside_their_drawing_whatever_a_record_says(
    a: float, b: float, c: float, d: float, e: float
) -> None:
    for svg in (interval_bar(a, b, c, (min(d, e), max(d, e))), forest_bar(a, b, c, abs(d), clear=True)):
        assert all(-1 <= number <= 151 for number in coordinates(svg))


@given(
    TEXT, st.dictionaries(st.integers(0, 9), st.lists(st.tuples(st.integers(0, 2**62), st.none() | ANY)), max_size=3)
)
def test_learning_curves_stay_inside_their_drawing(
    name: str, curves: dict[int, list[tuple[int, float | None]]]
) -> None:
    assert all(0 <= number <= 260 for number in coordinates(line_plot(name, curves)))


def test_a_value_in_the_middle_of_its_scale_is_drawn_in_the_middle() -> None:
    circle = ElementTree.fromstring(interval_bar(0.5, 0.4, 0.6, (0.0, 1.0))).find("circle")
    assert circle is not None
    assert float(circle.get("cx", "")) == 58


def test_a_number_beyond_its_scale_is_an_arrow_at_the_scales_end() -> None:
    assert "polygon" not in forest_bar(-2.0, -3.0, 5.0, 2.0, clear=True)  # an interval may be cut off
    for value, tip in ((-2.1, 1.0), (2.1, 149.0)):
        arrow = ElementTree.fromstring(forest_bar(value, value - 1, value + 1, 2.0, clear=True)).find("polygon")
        assert arrow is not None
        assert float(arrow.get("points", "").split(",")[0]) == tip
    drawn = ElementTree.fromstring(interval_bar(0.1, 0.0, 0.2, (0.5, 1.0)))
    assert drawn.find("circle") is None
    assert drawn.find("polygon") is not None


def test_one_bar_far_out_does_not_make_dots_of_the_others() -> None:
    assert reach([]) == 0
    assert reach([0.0, 0.0, 0.0, 4.0]) == 4  # nothing to hold it against
    assert reach([3.0, 1.0, 2.0, 5.0]) == 5
    assert reach([1.0, 2.0, 3.0, 2.0, 2.0, 3.0, 1.0, 78.0]) == 6
