"""The picture is valid SVG, with its points where they belong."""

import xml.etree.ElementTree as ET

import pytest

from launcher.bench.plot import HEIGHT, WIDTH, Chart, Line, _ceiling, distribution, picture

SVG = "{http://www.w3.org/2000/svg}"


def test_lines_stay_inside_and_names_are_escaped() -> None:
    lines = (Line("a<b", ((0.0, 0.0), (5.0, 10.0))), Line("p99", ((1.0, 3.0),)))
    root = ET.fromstring(picture("R&D", [Chart("t", "x", "y", lines), Chart("e", "x", "y", ())]))
    paths = [path.get("points", "") for path in root.iter(f"{SVG}polyline")]
    assert len(paths) == 2
    for path in paths:
        for point in path.split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= WIDTH
            assert 0 <= y <= HEIGHT
    (first, second) = (tuple(map(float, point.split(","))) for point in paths[0].split())
    assert first[0] < second[0]
    assert first[1] > second[1], "larger values stand higher"
    texts = {text.text for text in root.iter(f"{SVG}text")}
    assert {"R&D", "a<b", "p99", "t"} <= texts


def test_distributions() -> None:
    line = distribution("ttft", [3.0, 1.0, 2.0, 4.0])
    assert line.points == ((1.0, 25.0), (2.0, 50.0), (3.0, 75.0), (4.0, 100.0))
    many = distribution("itl", [float(number) for number in range(100_000)])
    assert len(many.points) <= 401
    assert many.points[-1] == (99_999.0, 100.0)


@pytest.mark.parametrize(
    ("value", "ceiling"), [(0, 1), (0.9, 1), (1.2, 1.5), (43, 50), (810, 1000)]
)
def test_axes_end_at_round_numbers(value: float, ceiling: float) -> None:
    assert _ceiling(value) == pytest.approx(ceiling)
