"""LIDC-IDRI's reading XML: what each reader drew and rated."""

from __future__ import annotations

import pytest

from monai_medclip.data import parse_lidc_xml

from .lidc_files import NEUTRAL, mark, small_mark, square, write_readings


def test_readers_and_their_marks_are_read_in_order(tmp_path):
    first, second = square(100, 200), square(101, 201)
    readers = [[mark({-5.0: first, -2.5: second}, name="Nodule 001", malignancy=4)], [], [mark({1.5: first}, name="7")]]
    scan = parse_lidc_xml(write_readings(tmp_path / "069.xml", "1.2.840", readers))
    assert (scan.series_uid, scan.study_uid, scan.unrated) == ("1.2.840", "1.2.840.0", ())
    assert [(one.reader, one.nodule_id) for one in scan.readings] == [(1, "Nodule 001"), (3, "7")]
    assert scan.readings[0].ratings == NEUTRAL | {"malignancy": 4}
    assert [contour.z_mm for contour in scan.readings[0].contours] == [-5.0, -2.5]
    assert [tuple(point) for point in scan.readings[0].contours[1].points] == second


def test_holes_are_told_apart(tmp_path):
    path = write_readings(tmp_path / "1.xml", "1.2", [[mark({0.0: square(5, 5)}, inclusion="FALSE")]])
    assert not parse_lidc_xml(path).readings[0].contours[0].inclusion


@pytest.mark.parametrize("unrated", [small_mark("a"), mark({}, name="a"), mark({0.0: [(1, 1)]}, name="a")])
@pytest.mark.parametrize("kept", [0, 1])
def test_marks_without_outline_or_ratings_are_no_nodules(tmp_path, unrated, kept):
    marks = [unrated] + [mark({0.0: square(5, 5)})] * kept
    scan = parse_lidc_xml(write_readings(tmp_path / "1.xml", "1.2", [marks]))
    assert (scan.unrated, len(scan.readings)) == (("a",), kept)


@pytest.mark.parametrize("empty", ["0", ""])
def test_one_missing_rating_makes_a_mark_unrated(tmp_path, empty):
    path = write_readings(tmp_path / "1.xml", "1.2", [[mark({0.0: square(5, 5)}, name="b", margin=empty)]])
    assert parse_lidc_xml(path).unrated == ("b",)


def test_a_rating_off_its_scale_is_left_out_and_told(tmp_path):
    path = write_readings(tmp_path / "1.xml", "1.2", [[mark({0.0: square(5, 5)}, internalStructure=5)]])
    reading = parse_lidc_xml(path).readings[0]
    assert reading.off_scale == ("internalStructure 5 of 1 to 4",)
    assert reading.ratings == {name: value for name, value in NEUTRAL.items() if name != "internalStructure"}


def test_what_is_no_reading_is_refused_by_name(tmp_path):
    radiograph = write_readings(tmp_path / "cxr.xml", "1.2", [], root="IdriReadMessage")
    with pytest.raises(ValueError, match=r"cxr.xml is no reading of a CT: its root is '.*IdriReadMessage'"):
        parse_lidc_xml(radiograph)
    with pytest.raises(ValueError, match=r"none.xml is no reading of a CT.*its series ''"):
        parse_lidc_xml(write_readings(tmp_path / "none.xml", "", []))
    (tmp_path / "cut.xml").write_text(radiograph.read_text()[:-10])
    with pytest.raises(ValueError, match=r"cut.xml is not readable XML"):
        parse_lidc_xml(tmp_path / "cut.xml")
