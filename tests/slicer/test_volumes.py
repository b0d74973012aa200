"""Maps lie where their volumes lie, colored and thresholded, and volumes are sent as they are."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

pytest.importorskip("slicer_core", reason="pip install slicer-core, see tests/slicer/README.md")
pytest.importorskip("trame_slicer", reason="pip install trame-slicer slicer-layer-dm, see tests/slicer/README.md")
from MedCLIPLib.volumes import heat_colors, load_heatmap, peak_ras, save_volume, set_opacity, set_threshold

import slicer

from .contract_server import nifti, nrrd
from .scenes import AXIAL, FILM, OBLIQUE, add_volume, affine_of, drawn, inverted_film, marked, voxels


def write(folder, content):
    """A map's file."""
    file = folder / "map.nrrd"
    file.write_bytes(content)
    return file


# --- the map as a volume


@pytest.mark.parametrize("affine", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
@pytest.mark.parametrize("corner", [(0, 0, 0), (5, 0, 3), (0, 4, 3)])
def test_a_float_map_lies_voxel_by_voxel_on_its_volume(scene, tmp_path, affine, corner):
    background = add_volume(scene, np.zeros((6, 5, 4), np.int16), affine)
    values = marked((6, 5, 4), corner)
    heat = load_heatmap(scene, write(tmp_path, nrrd(values, affine)), background, name="heat")
    assert heat.GetImageData().GetScalarTypeAsString() == "float"
    np.testing.assert_array_equal(voxels(heat), values)
    np.testing.assert_allclose(affine_of(heat), affine, atol=1e-9)
    np.testing.assert_allclose(peak_ras(heat), (affine @ (*corner, 1))[:3], atol=1e-9)


def test_a_map_stored_in_another_order_lies_at_the_same_place_in_the_patient(scene, tmp_path):
    values = marked((6, 5, 4), (5, 1, 3))
    flip = np.eye(4)
    flip[2, 2], flip[2, 3] = -1, 3  # the last slice first
    background = add_volume(scene, np.zeros((6, 5, 4), np.int16), OBLIQUE)
    heat = load_heatmap(scene, write(tmp_path, nrrd(values[..., ::-1], OBLIQUE @ flip)), background, name="heat")
    np.testing.assert_allclose(peak_ras(heat), (OBLIQUE @ (5, 1, 3, 1))[:3], atol=1e-9)


def test_a_film_has_no_place_in_the_patient_so_its_map_takes_over_the_volumes_own(scene, tmp_path):
    background = add_volume(scene, np.zeros((6, 5, 1), np.int16), FILM)
    values = marked((6, 5, 1), (5, 0, 0))
    heat = load_heatmap(scene, write(tmp_path, nrrd(values, np.eye(4))), background, name="heat")
    np.testing.assert_array_equal(voxels(heat), values)
    np.testing.assert_allclose(affine_of(heat), FILM, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "affine", "words"),
    [((6, 5, 4), OBLIQUE @ np.diag([1, 1, -1, 1]), "elsewhere in the patient"), ((6, 5, 1), FILM, "map of another")],
)
def test_a_map_of_another_image_is_refused_and_the_old_one_stays(scene, tmp_path, shape, affine, words):
    background = add_volume(scene, np.zeros(shape, np.int16), OBLIQUE)
    old = load_heatmap(scene, write(tmp_path, nrrd(marked(shape, (0, 0, 0)), OBLIQUE)), background, name="old")
    wrong = np.zeros(shape if shape[2] > 1 else (5, 5, 1), np.float32)
    with pytest.raises(ValueError, match=words):
        load_heatmap(scene, write(tmp_path, nrrd(wrong, affine)), background, name="new")
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 2
    assert scene.IsNodePresent(old)


def test_a_map_follows_the_transform_of_its_volume(scene, tmp_path):
    background = add_volume(scene, np.zeros((6, 5, 4), np.int16), OBLIQUE)
    shift = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    move = np.eye(4)
    move[:3, 3] = 10, 20, 30
    shift.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(move))
    background.SetAndObserveTransformNodeID(shift.GetID())
    heat = load_heatmap(scene, write(tmp_path, nrrd(marked((6, 5, 4), (5, 4, 3)), OBLIQUE)), background, name="heat")
    np.testing.assert_allclose(peak_ras(heat), (move @ OBLIQUE @ (5, 4, 3, 1))[:3], atol=1e-9)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (nrrd(np.ones((6, 5, 4), np.uint8), AXIAL), "unsigned char, not floats"),
        (nrrd(np.full((6, 5, 4), np.nan, np.float32), AXIAL), "NaN or infinity"),
        (b"not an image", "cannot be read"),
    ],
)
def test_what_is_no_map_is_refused(scene, tmp_path, content, words):
    background = add_volume(scene, np.zeros((6, 5, 4), np.int16), AXIAL)
    with pytest.raises(ValueError, match=words):
        load_heatmap(scene, write(tmp_path, content), background, name="heat")


def test_one_volume_has_one_map_and_its_display_and_temporary_file_are_not_left_behind(scene, tmp_path):
    background = add_volume(scene, np.zeros((6, 5, 4), np.int16), AXIAL)
    counts = []
    for name in ("first", "second"):
        file = write(tmp_path, nrrd(marked((6, 5, 4), (0, 0, 0)), AXIAL))
        heat = load_heatmap(scene, file, background, name=name)
        counts.append((scene.GetNumberOfNodes(), scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeDisplayNode")))
    assert counts[0] == counts[1]
    assert heat.GetName() == "second"
    assert heat.GetStorageNode() is None


# --- colors, threshold, opacity


def test_colors_are_plasma_and_grow_opaque_with_the_value(scene):
    matplotlib = pytest.importorskip("matplotlib")
    colors = heat_colors(scene)
    rgba = np.array([[colors.GetLookupTable().GetTableValue(index)] for index in range(256)])[:, 0]
    np.testing.assert_allclose(rgba[:, :3], matplotlib.colormaps["plasma"](np.arange(256))[:, :3], atol=0.02)
    np.testing.assert_allclose(rgba[:, 3], np.linspace(0, 1, 256), atol=1 / 255)
    assert heat_colors(scene) is colors


def test_the_threshold_is_a_share_of_the_maximum(scene, tmp_path):
    background = add_volume(scene, np.zeros((6, 5, 4), np.int16), AXIAL)
    heat = load_heatmap(scene, write(tmp_path, nrrd(marked((6, 5, 4), (0, 0, 0)), AXIAL)), background, name="heat")
    display = heat.GetDisplayNode()
    assert (display.GetLowerThreshold(), display.GetUpperThreshold()) == (2, 8)  # a quarter of 8, at first
    set_threshold(heat, 0.75)
    assert (display.GetApplyThreshold(), display.GetLowerThreshold()) == (1, 6)
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0, 8)
    with pytest.raises(ValueError, match=r"threshold=1\.5 must be from 0 to 1"):
        set_threshold(heat, 1.5)


# --- what the eye sees


def test_the_view_shows_the_map_in_color_at_its_place_and_the_volume_in_gray_elsewhere(app, tmp_path):
    background = add_volume(app.scene, np.full((40, 40, 6), 100, np.int16), AXIAL)
    background.GetDisplayNode().SetAutoWindowLevel(False)
    background.GetDisplayNode().SetWindowLevelMinMax(0, 200)
    values = np.zeros((40, 40, 6), np.float32)
    values[28:36, 28:36, 2:5] = 8  # the patient's left and back
    values[4:12, 4:12, 2:5] = 1  # right and front, below the threshold
    heat = load_heatmap(app.scene, write(tmp_path, nrrd(values, AXIAL)), background, name="heat")
    image = drawn(app, background, heat, 1.0)
    np.testing.assert_allclose(image[160, 160], (240, 249, 33), atol=4)  # lower right on the screen: full plasma
    np.testing.assert_allclose(image[40, 40], image[100, 100], atol=1)  # upper left: as gray as the middle
    assert np.ptp(image[100, 100]) == 0
    set_threshold(heat, 0.1)
    assert np.ptp(drawn(app, background, heat, 1.0)[40, 40]) > 5  # now it is tinted
    assert np.ptp(drawn(app, background, heat, 0.0)[160, 160]) == 0
    half = drawn(app, background, heat, 0.5)[160, 160]
    np.testing.assert_allclose(half, (np.array([240, 249, 33]) + image[100, 100]) / 2, atol=4)
    with pytest.raises(ValueError, match="opacity=2 must be from 0 to 1"):
        set_opacity(app.scene, heat, 2)


def test_a_map_without_support_shows_nothing(app, tmp_path):
    background = add_volume(app.scene, np.full((40, 40, 6), 100, np.int16), AXIAL)
    heat = load_heatmap(
        app.scene, write(tmp_path, nrrd(np.full((40, 40, 6), -3, np.float32), AXIAL)), background, name="heat"
    )
    set_threshold(heat, 1.0)
    assert heat.GetDisplayNode().GetLowerThreshold() > -3
    image = drawn(app, background, heat, 1.0)
    assert np.ptp(image, axis=2).max() == 0


# --- what is sent


@pytest.mark.parametrize("affine", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_a_volume_is_sent_voxel_by_voxel_with_its_place(scene, tmp_path, affine):
    values = np.arange(-60, 60, dtype=np.int16).reshape(6, 5, 4)
    file = tmp_path / "volume.nii.gz"
    save_volume(add_volume(scene, values, affine, "DOE^JANE"), file)
    voxels_, affine_ = nifti(file.read_bytes())
    np.testing.assert_array_equal(voxels_, values)
    np.testing.assert_allclose(affine_, affine, atol=1e-5)
    assert b"DOE" not in gzip.decompress(file.read_bytes())


def test_bone_is_bright_in_what_is_sent_of_a_film_that_is_stored_inverted(app, tmp_path):
    stored = np.arange(30, dtype=np.uint16).reshape(5, 6) * 100
    (film,) = app.io_manager.load_volumes([str(inverted_film(tmp_path / "film.dcm", stored))])
    save_volume(film, tmp_path / "film.nii.gz")
    sent, _ = nifti((tmp_path / "film.nii.gz").read_bytes())
    np.testing.assert_array_equal(sent[..., 0].T, 4095 - stored)
