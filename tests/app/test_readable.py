"""What a datastore or a client hands out, and what the loaders read in its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monai_medclip.app.readable import dicom_beside, readable
from monai_medclip.transforms import BadInputError, LoadCTd


def test_dicom_files_beside_a_made_nifti_are_read_instead(tmp_path: Path) -> None:
    (tmp_path / "1.2.3").mkdir()
    assert dicom_beside(tmp_path / "1.2.3.nii.gz") == tmp_path / "1.2.3.nii.gz"  # the folder is empty
    (tmp_path / "1.2.3" / "a.dcm").touch()
    assert dicom_beside(tmp_path / "1.2.3.nii.gz") == tmp_path / "1.2.3"
    assert dicom_beside(tmp_path / "film.dcm") == tmp_path / "film.dcm"


def test_a_volume_from_slicer_becomes_what_the_loader_reads(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    values = np.random.default_rng(0).integers(-1000, 400, (4, 5, 6)).astype(np.int16)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.5, 0.75, 2.0))
    sitk.WriteImage(image, str(tmp_path / "ct.nrrd"))
    with readable(tmp_path / "ct.nrrd") as path:
        loaded = LoadCTd("image")({"image": path})["image"]
    assert not path.exists()
    np.testing.assert_array_equal(loaded[0].numpy(), values.transpose(2, 1, 0))
    np.testing.assert_allclose(np.abs(np.diag(loaded.affine)), (0.5, 0.75, 2.0, 1.0))


def test_a_damaged_volume_says_so(tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK")
    (tmp_path / "bad.nrrd").write_text("NRRD0004\n")
    with pytest.raises(BadInputError, match="cannot be read"), readable(tmp_path / "bad.nrrd"):
        pass
