"""Charts and pages of reports: what is drawn is what was measured, and nothing leaves the file."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.chart import Bar, Series, Span, bars, decades, gantt, lanes, lines, short, ticks
from bench.page import Section, page, write_page
from protocol.errors import UsageError

_SVG = "{http://www.w3.org/2000/svg}"


def _widths(svg: str) -> list[float]:
    return [float(one.attrib["width"]) for one in ElementTree.fromstring(svg).iter(f"{_SVG}rect")]


def test_bars_are_as_long_as_their_values() -> None:
    one, two = _widths(bars("t", "s", [Bar("a", 1.0), Bar("b", 4.0)]))
    assert two == pytest.approx(4 * one, abs=0.2)


def test_bars_on_a_logarithmic_scale_differ_by_their_ratio() -> None:
    ten, hundred, thousand = _widths(bars("t", "s", [Bar("a", 10.0), Bar("b", 100.0), Bar("c", 1000.0)], log=True))
    assert hundred - ten == pytest.approx(thousand - hundred, abs=0.2)


def test_a_line_goes_up_where_its_values_do() -> None:
    svg = ElementTree.fromstring(lines("t", "tasks", "s", [Series("a", ((1.0, 1.0), (2.0, 3.0), (4.0, 9.0)))]))
    ys = [float(one.attrib["cy"]) for one in svg.iter(f"{_SVG}circle")]
    assert ys == sorted(ys, reverse=True)
    with pytest.raises(ValueError, match="point"):
        lines("t", "x", "y", [])


def test_spans_tell_their_times_and_lie_in_order() -> None:
    svg = lanes("t", [("gpu", [Span(0.0, 1.0, "first"), Span(1.5, 2.0, "second")])])
    assert "first: 0 to 1 s" in svg
    first, second = ElementTree.fromstring(svg).iter(f"{_SVG}rect")
    assert float(first.attrib["x"]) + float(first.attrib["width"]) < float(second.attrib["x"])


def test_what_a_worker_is_called_cannot_become_markup() -> None:
    evil = '<script>alert(1)</script>&"'
    text = page(evil, evil, [Section(evil, evil, (bars(evil, evil, [Bar(evil, 1.0)]),), [(evil,), (evil,)])])
    assert "<script" not in text
    ElementTree.fromstring(bars(evil, evil, [Bar(evil, 1.0)]))


def test_a_page_names_no_address_and_runs_nothing() -> None:
    text = page("t", "a", [Section("h", "s", (bars("t", "s", [Bar("a", 1.0)]),), [("k", "v"), ("a", "1,200")])])
    assert set(re.findall(r"https?://[^\"' >]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in text
    assert "<td class=n>1,200" in text


def test_a_page_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be written"):
        write_page(tmp_path / "missing" / "report.html", "t", "a", [])


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.8, "0.8"), (21_034.0, "21,034"), (1.2345, "1.23"), (2e-5, "2.00e-05")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text


def test_marks_are_round() -> None:
    assert ticks(0.0, 9.0) == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert decades(1000, 100_000) == [1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000]


def test_spans_of_a_lane_that_overlap_lie_below_each_other_and_others_beside() -> None:
    spans = [Span(0.0, 1.0, "first"), Span(0.5, 2.0, "second"), Span(1.0, 4.0, "third")]
    blocks = ElementTree.fromstring(gantt("t", [("gpu", spans)], 4.0)).iter(f"{_SVG}rect")
    first, second, third = ({name: float(one.attrib[name]) for name in ("x", "y", "width")} for one in blocks)
    assert first["y"] == third["y"] < second["y"]
    assert third["width"] == pytest.approx(3 * first["width"], abs=0.2)
    assert third["x"] == pytest.approx(first["x"] + first["width"], abs=0.2)


def test_what_is_folded_shows_its_heading_only() -> None:
    text = page("t", "a", [Section("h & h", "inside", folded=True)])
    assert "<details><summary>h &amp; h</summary><p>inside</p></details>" in text


def test_a_legend_stands_above_the_plot_and_wraps() -> None:
    one = lines("t", "x", "a_long_unit", [Series("only", ((1.0, 1.0), (2.0, 2.0)))])
    many = lines("t", "x", "a_long_unit", [Series(f"a series of number {n}", ((1.0, n), (2.0, n))) for n in range(6)])
    assert 'viewBox="0 0 720 320"' in one
    assert many.index("number 5") < many.index("<g transform")
    assert len(set(re.findall(r'y="([\d.]+)" text-anchor="start">a series', many))) == 2
