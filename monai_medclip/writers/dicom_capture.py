"""Secondary Capture: one picture that shows image, heat, score and legend in every viewer."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
from matplotlib.figure import Figure
from monai.data import MetaTensor
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset

from monai_medclip.transforms import LUNG_WINDOW_HU, DisplayOrderd, LoadRadiographd
from monai_medclip.transforms.ct_volume import read_ct_stack
from monai_medclip.writers.dicom_parts import MANUFACTURER, NewObject, finish, highdicom, refer_to_source
from monai_medclip.writers.dicom_source import DicomSource
from monai_medclip.writers.dicom_statements import DicomStatements, Statement, told
from monai_medclip.writers.figure import overlay_figure, put_title
from monai_medclip.writers.heat import Heat
from monai_medclip.writers.heat import number as digits
from monai_medclip.writers.overlay import OverlayStyle
from monai_medclip.writers.saving import figure_png
from monai_medclip.writers.volume import orthogonal_figure

__all__ = ["capture", "capture_figure", "source_picture"]

_SERIES_NUMBER = 9300
_NOTICE = "NOT FOR CLINICAL USE"


def source_picture(source: DicomSource) -> MetaTensor:
    """The source's pixels as a reader shows them.

    Args:
        source: a radiograph or a CT stack.

    Returns:
        (1, x, y[, z]), 0 to 1, on the source's own grid: a radiograph by its VOI, a CT in the lung window.

    Raises:
        BadInputError: the pixels cannot be decoded.
    """
    if source.stack is None:
        return LoadRadiographd("image")({"image": source.path})["image"]
    low, high = LUNG_WINDOW_HU
    volume = read_ct_stack(source.stack)
    unit = torch.from_numpy(volume.hu)[None].sub_(low).div_(high - low).clamp_(0, 1)
    return MetaTensor(unit, affine=torch.as_tensor(volume.affine))


def capture(
    source: DicomSource,
    picture: MetaTensor,
    values: NDArray[np.float32],
    answer: Statement,
    says: DicomStatements,
    *,
    number: int,
) -> Dataset:
    """One map over its image as a Secondary Capture (PS3.3 A.8.1): a radiograph, or a CT cut through the map's peak.

    Args:
        source: what the map belongs to.
        picture: see `source_picture`.
        values: (slices, rows, columns), float32, raw.
        answer: prompt and score.
        says: method, model, threshold.
        number: of the prompt, from 1.

    Returns:
        the object, 8-bit RGB; its text is large enough to be read at its own size.
    """
    made_from = ("capture", says.model, says.model_version, says.method, says.threshold, answer.text)
    new = NewObject.of(source, told("picture", answer, says.method), _SERIES_NUMBER + number, made_from)
    with Image.open(BytesIO(figure_png(capture_figure(picture, values, answer, says)))) as png:
        pixels = np.asarray(png.convert("RGB"))
    dataset = highdicom().sc.SCImage(
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        study_instance_uid=source.headers[0].StudyInstanceUID,
        **new.arguments(says),
    )
    dataset.PatientOrientation = None  # of several views and text on one sheet there is none
    dataset.BodyPartExamined = source.headers[0].get("BodyPartExamined") or "CHEST"  # for which our readers are
    dataset.ConversionType = "WSD"
    dataset.SecondaryCaptureDeviceManufacturer = MANUFACTURER
    # The prompt is free text: whoever removes identities from pixels should look at it.
    dataset.BurnedInAnnotation = "YES"
    purpose = f"picture of the {says.method} heatmap of '{answer.text}'"
    refer_to_source(dataset, source, derivation=purpose)
    return finish(dataset, source, new, says, purpose=purpose)


def capture_figure(
    picture: MetaTensor, values: NDArray[np.float32], answer: Statement, says: DicomStatements
) -> Figure:
    """The picture of a capture: upright, with prompt, probability, score, method, model, legend and notice.

    Args:
        picture: (1, x, y[, z]), see `source_picture`.
        values: (slices, rows, columns), raw.
        answer: prompt and score.
        says: method, model, threshold.
    """
    flat = picture.ndim == 3
    native = values.transpose(2, 1, 0)[..., 0] if flat else values.transpose(2, 1, 0)  # (z, y, x) -> (x, y[, z])
    heat = MetaTensor(torch.from_numpy(np.ascontiguousarray(native))[None]).copy_meta_from(picture)
    shown = DisplayOrderd(("image", "heat"), spatial_dims=2 if flat else 3)({"image": picture, "heat": heat})
    image, tint = (shown[key][0].as_tensor().numpy() for key in ("image", "heat"))
    told_heat = Heat(tint, answer.text, says.method, answer.logit, says.units)
    style = OverlayStyle(threshold=says.threshold)
    window = f"\nCT from {LUNG_WINDOW_HU[0]:g} to {LUNG_WINDOW_HU[1]:g} HU"
    if flat or len(image) == 1:
        pixels = (image, tint) if flat else (image[0], tint[0])
        figure = overlay_figure(pixels[0], told_heat._replace(values=pixels[1]), style=style)
        window = "" if flat else window
    else:
        spacing_mm = np.linalg.norm(np.asarray(shown["image"].affine)[:3, :3], axis=0).tolist()
        figure = orthogonal_figure(image, told_heat, spacing_mm=spacing_mm, style=style)
    told_probability = "" if answer.probability is None else f"probability {answer.probability:.2f}, "
    headline = f"{answer.text}: {told_probability}score {digits(answer.logit)} logit"
    made_by = f"{says.method} · {says.model} {says.model_version}"
    put_title(figure, headline, f"{made_by}{window}\n{_NOTICE}")
    figure.suptitle(f"\n\n{figure.get_suptitle()}", fontsize=11)  # OHIF's cine player hides the top of the picture
    return figure
