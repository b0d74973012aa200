"""What is drawn is what is said: lesions, masks, counterfactual pairs, and one geometry for radiograph and CT."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, center_of_mass

from monai_medclip.data import PhantomPatient
from monai_medclip.data.phantom_geometry import HU, Plane, Tubes, attenuation, hu_of, interval, overlap, project, tissue
from monai_medclip.data.phantom_lesions import FINDING_NAMES, FOCAL, SIZE_MM
from monai_medclip.data.phantom_scene import healthy_chest, with_lesions
from monai_medclip.data.phantom_tubes import pulmonary_vessels
from monai_medclip.data.phantom_xray import FIELD_OF_VIEW_MM, body_attenuation


def _patients(finding, count, start=0, alone=False):
    found = []
    while len(found) < count:
        patient = PhantomPatient(0, start)
        names = [lesion.finding for lesion in patient.findings]
        if finding in names and (not alone or len(names) == 1):
            found.append(patient)
        start += 1
    return found


def _lesion(patient, finding):
    return next(lesion for lesion in patient.findings if lesion.finding == finding)


def test_a_patient_is_the_same_whoever_asks():
    one, two = PhantomPatient(3, 17), PhantomPatient(3, 17)
    assert one.findings == two.findings
    assert one.report == two.report
    assert np.array_equal(one.xray(96).image, two.xray(96).image)
    assert PhantomPatient(4, 17).anatomy != one.anatomy


def test_findings_are_independent_and_a_quarter_each_but_nodules():
    table = np.asarray(
        [[any(x.finding == f for x in PhantomPatient(1, k).findings) for f in FINDING_NAMES] for k in range(400)], float
    )
    assert table.mean(axis=0) == pytest.approx([0.4, 0.25, 0.25, 0.25, 0.25, 0.25], abs=0.08)
    off = np.corrcoef(table.T) - np.eye(6)
    assert np.abs(off).max() < 0.18


@pytest.mark.parametrize("size", [64, 128, 224])
def test_an_image_is_a_square_of_stated_spacing_in_0_to_1(size):
    xray = PhantomPatient(0, 1).xray(size)
    assert xray.image.shape == (size, size)
    assert xray.image.dtype == np.float32
    assert xray.image.min() >= 0
    assert xray.image.max() <= 1
    assert xray.image.std() > 0.1
    assert xray.spacing_mm == pytest.approx(FIELD_OF_VIEW_MM / size)


def test_every_finding_has_a_mask_and_every_mask_a_finding():
    for index in range(60):
        patient = PhantomPatient(0, index)
        masks = patient.xray(128).masks
        assert set(masks) == {lesion.finding for lesion in patient.findings}
        assert all(mask.any() for mask in masks.values())


@pytest.mark.parametrize("finding", FINDING_NAMES)
def test_the_pair_differs_only_where_the_lesion_is(finding):
    for patient in _patients(finding, 6):
        full, without = patient.xray(128), patient.xray(128, without=[finding])
        change = np.abs(full.image - without.image) > 1e-6
        assert change.any()
        assert finding not in without.masks
        if finding in FOCAL:  # blur reaches two or three pixels further
            assert not (change & ~binary_dilation(full.masks[finding], iterations=7)).any()
        assert change[:5].mean() < 0.01  # never the neck


def test_removing_one_finding_leaves_the_others_and_their_sentences():
    patient = next(p for p in (PhantomPatient(0, k) for k in range(500)) if len(p.findings) >= 3)
    gone = patient.findings[0].finding
    full, without = patient.xray(96), patient.xray(96, without=[gone])
    for label, mask in without.masks.items():
        if label in FOCAL or label == "cardiomegaly":
            assert np.array_equal(mask, full.masks[label])
    kept = [s for s in patient.report.split(". ") if s in patient.report_without([gone])]
    assert kept


def test_lesions_are_seen_above_the_stated_contrast():
    for finding, least in (("nodule", 0.06), ("mass", 0.06), ("consolidation", 0.05), ("pleural effusion", 0.05)):
        seen = []
        for patient in _patients(finding, 15):
            full, without = patient.xray(128), patient.xray(128, without=[finding])
            seen.append(np.abs(full.image - without.image).max())
        assert np.mean(np.asarray(seen) > least) >= 0.95, (finding, sorted(seen)[:4])


def test_the_right_side_is_at_the_left_of_the_picture():
    for finding in ("nodule", "mass", "consolidation", "pneumothorax", "pleural effusion"):
        for patient in _patients(finding, 8):
            _, column = center_of_mass(patient.xray(96).masks[finding])
            shift = -float(np.asarray(patient.xray(96).image.shape[1] / 2))
            assert (column + shift < 6) if _lesion(patient, finding).side == "right" else (column + shift > -6)


def test_upper_lesions_lie_above_lower_ones():
    rows = {"upper": [], "middle": [], "lower": []}
    for patient in _patients("nodule", 40):
        rows[_lesion(patient, "nodule").zone].append(center_of_mass(patient.xray(64).masks["nodule"])[0])
    assert np.mean(rows["upper"]) < np.mean(rows["middle"]) < np.mean(rows["lower"])


@pytest.mark.parametrize("finding", list(SIZE_MM))
def test_sizes_stay_within_their_stated_range(finding):
    low, high = SIZE_MM[finding]
    sizes = [_lesion(patient, finding).size_mm for patient in _patients(finding, 40)]
    assert low <= min(sizes)
    assert max(sizes) <= high


def test_a_nodules_mask_measures_its_stated_diameter():
    measured, stated = [], []
    for patient in _patients("nodule", 12):
        xray = patient.xray(384)
        measured.append(2 * np.sqrt(xray.masks["nodule"].sum() / np.pi) * xray.spacing_mm)
        stated.append(_lesion(patient, "nodule").size_mm)
    close = [one == pytest.approx(size, rel=0.12, abs=1.0) for one, size in zip(measured, stated, strict=True)]
    assert sum(close) >= 10
    assert all(
        one < 1.12 * size + 1 for one, size in zip(measured, stated, strict=True)
    )  # heart or diaphragm may hide some


def test_an_enlarged_heart_exceeds_half_the_chest_and_a_healthy_one_does_not():
    for index in range(200):
        patient = PhantomPatient(2, index)
        enlarged = [x for x in patient.findings if x.finding == "cardiomegaly"]
        chest = 2 * patient.anatomy.thorax_half_width
        assert patient.anatomy.heart_width / chest < 0.51
        assert all(x.size_mm / chest > 0.54 for x in enlarged)


def test_an_effusion_replaces_lung_and_is_never_denser_than_soft_tissue():
    plane = Plane.make((96, 96), (3.6, 3.6))
    for patient in _patients("pleural effusion", 5):
        healthy = healthy_chest(patient.anatomy, plane)
        effusion = with_lesions(healthy, patient.anatomy, [_lesion(patient, "pleural effusion")], plane)
        empty = np.zeros(plane.shape, np.float32)
        before = healthy.log_attenuation(empty, patient.anatomy.lung_hu)
        after = effusion.log_attenuation(empty, patient.anatomy.lung_hu)
        assert after.max() <= 1e-4  # solid soft tissue is the zero of this map
        assert (after - before).max() > 0.1


def test_ct_and_radiograph_are_the_same_thorax():
    patient = next(p for p in (PhantomPatient(0, k) for k in range(99)) if len(p.findings) >= 3)
    ct = patient.ct((66, 70, 70))  # 5 mm voxels
    plane = Plane.make((66, 70), (5.0, 5.0), centre_mm=(0.0, -13.0))
    seed = (patient.seed, patient.index)
    vessels = project(pulmonary_vessels(patient.anatomy, np.random.default_rng([*seed, 21])), plane)
    chest = with_lesions(healthy_chest(patient.anatomy, plane), patient.anatomy, patient.findings, plane)
    frame, _ = body_attenuation(patient.anatomy, plane, seed, 10.0)
    projected = frame + chest.log_attenuation(vessels, patient.anatomy.lung_hu)
    summed = np.vectorize(attenuation)(ct.volume).sum(axis=1) * ct.spacing_mm[1]
    inside = projected > 0.3
    assert np.corrcoef(projected[inside], summed[inside])[0, 1] > 0.97
    assert np.abs(projected - summed)[inside].mean() < 0.2  # of 1 to 5


def test_ct_values_and_masks_are_what_they_say():
    patient = _patients("nodule", 1)[0]
    lesion = _lesion(patient, "nodule")
    ct, without = patient.ct((64, 96, 96)), patient.ct((64, 96, 96), without=["nodule"])
    assert ct.volume.shape == (64, 96, 96)
    assert abs(float(np.median(ct.volume[:, :3])) - HU["air"]) < 10
    mask = ct.masks["nodule"]
    changed = np.abs(ct.volume - without.volume) > 1e-3
    assert (changed & mask).sum() == mask.sum()
    assert not (changed & ~binary_dilation(mask, iterations=3)).any()
    assert ct.volume[mask].mean() > -100
    columns = np.argwhere(mask)[:, 2]
    assert (columns.mean() < 48) == (lesion.side == "right")


def test_ct_nodule_has_the_volume_of_its_ball():
    sizes = [(p, _lesion(p, "nodule").size_mm) for p in _patients("nodule", 12)]
    patient, size = max(sizes, key=lambda pair: pair[1])
    ct = patient.ct((120, 128, 128))
    volume = ct.masks["nodule"].sum() * np.prod(ct.spacing_mm)
    assert volume == pytest.approx(np.pi / 6 * size**3, rel=0.15)


def test_a_tube_keeps_its_mass_at_every_pixel_size():
    tube = Tubes(*(np.asarray(x, np.float32) for x in ([[-40, 0, -20]], [[40, 0, 30]], [1.0])))
    stated = np.pi * np.hypot(80, 50)
    for pixels in (48, 96, 384):
        plane = Plane.make((pixels, pixels), (192 / pixels,) * 2)
        for hollow in (False, True):
            assert project(tube, plane, hollow=hollow).sum() * (192 / pixels) ** 2 == pytest.approx(stated, rel=0.05)


def test_intervals_overlap_and_attenuation_inverts():
    one, other = interval(0.0, np.full((1, 3), 5.0)), interval(6.0, np.asarray([[5.0, 0.5, -1.0]]))
    assert overlap(one, other).tolist() == [[4.0, 0.0, 0.0]]
    for hu in (-900.0, 40.0, 700.0, 2000.0):
        assert hu_of(attenuation(hu)) == pytest.approx(hu)
    assert tissue("air") == pytest.approx(0)
