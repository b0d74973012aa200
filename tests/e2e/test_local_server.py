"""A server of a folder: what its clients get, for radiographs and volumes, in every form that they can ask for."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

pytest.importorskip("monailabel", reason="pip install 'monai-medclip[label]', or run .ci/e2e")

import SimpleITK as sitk  # noqa: N813 - its usual name
from monailabel.client import MONAILabelClient
from requests_toolbelt.multipart import decoder

from .cases import Case, first_seen, lesion_on
from .conftest import Site, run_folder
from .requests_to import bands, float_map, image_of, infer, volume

PROMPT = "pleural effusion"
NAMES = {"heat 25-50%": 1, "heat 50-75%": 2, "heat 75-100%": 3}


def name_of(case: Case) -> str:
    """What MONAI Label calls a local file."""
    return case.image.name.partition(".")[0]


def test_info_offers_the_tasks_with_a_prompt_that_can_be_typed(local_site: Site) -> None:
    models = MONAILabelClient(local_site.server.url).info()["models"]
    assert {"heatmap", "findings", "zero_shot", "report_grounding"} <= set(models)
    assert (models["heatmap"]["type"], models["heatmap"]["labels"]) == ("segmentation", NAMES)
    assert isinstance(models["heatmap"]["config"]["prompt"], str)
    assert models["findings"]["type"] == "detection"


def test_every_output_says_the_same(local_site: Site) -> None:
    image = name_of(local_site.cases[0])
    as_json = infer(local_site.server, "heatmap", image, output="json", prompt=PROMPT).json()
    alone = bands(local_site.server, image, PROMPT)
    both = infer(local_site.server, "heatmap", image, output="all", prompt=PROMPT)
    parts = {part.headers[b"Content-Disposition"]: part for part in decoder.MultipartDecoder.from_response(both).parts}
    (params,) = (json.loads(part.text) for name, part in parts.items() if b'name="params"' in name)
    (file,) = (part.content for name, part in parts.items() if b'name="image"' in name)
    values = sitk.GetArrayFromImage(alone)
    assert params == as_json
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image_of(file)), values)
    assert as_json["prompt"] == PROMPT
    assert math.isfinite(as_json["score"])
    assert 0 <= as_json["probability"] <= 1
    assert values.dtype == np.uint8
    assert set(np.unique(values)) <= {0, 1, 2, 3}


def test_a_dicom_segmentation_is_refused_in_words_for_local_files(local_site: Site) -> None:
    answer = infer(local_site.server, "heatmap", name_of(local_site.cases[0]), output="dicom_seg", prompt=PROMPT)
    assert answer.status_code == 500
    assert "not supported" in answer.json()["detail"]


def test_the_stock_client_gets_file_and_scores(local_site: Site, tmp_path: object) -> None:
    client = MONAILabelClient(local_site.server.url, tmpdir=str(tmp_path))
    file, params = client.infer("heatmap", name_of(local_site.cases[0]), {"prompt": PROMPT, "result_dtype": "uint8"})
    assert sitk.GetArrayFromImage(sitk.ReadImage(file)).max() == 3
    assert params["label_names"] == NAMES
    file, params = client.infer("findings", name_of(local_site.cases[0]), {})
    with open(file, encoding="utf-8") as markups:
        points = [box["controlPoints"][0] for box in json.load(markups)["markups"]]
    assert len(points) == len(params["scores"]) == 6
    assert points[0]["label"].startswith(params["scores"][0]["finding"])


def test_bands_are_the_raw_map_in_thirds_above_the_threshold(local_site: Site) -> None:
    image = name_of(local_site.cases[0])
    raw, shown = float_map(local_site.server, image, PROMPT), bands(local_site.server, image, PROMPT)
    share = sitk.GetArrayFromImage(raw) / sitk.GetArrayFromImage(raw).max()
    expected = np.digitize(share, [0.25, 0.5, 0.75])
    assert raw.GetPixelID() == sitk.sitkFloat32
    assert shown.GetSize() == raw.GetSize()
    np.testing.assert_allclose(shown.GetOrigin(), raw.GetOrigin())
    assert (sitk.GetArrayFromImage(shown) == expected).mean() > 0.9999  # but for rounding at a step


def test_the_map_lies_on_the_grid_of_the_file(local_site: Site, modality: str) -> None:
    case = local_site.cases[0]
    raw, source = float_map(local_site.server, name_of(case), PROMPT), sitk.ReadImage(str(case.image))
    assert raw.GetSize() == source.GetSize()
    if modality == "CT":
        np.testing.assert_allclose(raw.GetOrigin(), source.GetOrigin(), atol=1e-3)
        np.testing.assert_allclose(raw.GetSpacing(), source.GetSpacing(), atol=1e-4)
        np.testing.assert_allclose(raw.GetDirection(), source.GetDirection(), atol=1e-5)


def test_the_map_finds_the_lesion(local_site: Site) -> None:
    seen = first_seen(local_site.cases, lambda case: float_map(local_site.server, name_of(case), case.finding))
    shown = bands(local_site.server, name_of(seen.case), seen.case.finding)
    lesion = lesion_on(seen.case, shown)
    hottest = sitk.GetArrayFromImage(shown) == 3
    assert (hottest & lesion).sum() / hottest.sum() > 0.3 > 3 * lesion.mean()


def test_sentences_get_a_label_each(local_site: Site) -> None:
    report = "There is a large left pleural effusion. The heart is enlarged."
    answer = infer(local_site.server, "report_grounding", name_of(local_site.cases[0]), output="image", report=report)
    assert set(np.unique(sitk.GetArrayFromImage(volume(answer)))) <= {0, 1, 2}
    said = infer(local_site.server, "report_grounding", name_of(local_site.cases[0]), output="json", report=report)
    sentences = said.json()["sentences"]
    assert [report[each["start"] : each["end"]] for each in sentences] == [each["text"] for each in sentences]
    assert len(sentences) == 2


def test_zero_shot_answers_with_json_alone(local_site: Site) -> None:
    answer = infer(local_site.server, "zero_shot", name_of(local_site.cases[0]))
    scores = answer.json()["scores"]
    assert len(scores) == 6
    assert [score["logit"] for score in scores] == sorted((score["logit"] for score in scores), reverse=True)


@pytest.mark.parametrize(
    "image, params, status",
    [
        ("nobody", {}, 404),
        ("../../etc/passwd", {}, 400),
        (None, {"prompt": ""}, 422),
        (None, {"prompt": "x" * 301}, 422),
        (None, {"method": "no such"}, 400),
        (None, {"image": "/etc/passwd"}, 400),
    ],
)
def test_bad_questions_are_refused_in_words(
    local_site: Site, image: str | None, params: dict[str, str], status: int
) -> None:
    answer = infer(local_site.server, "heatmap", image or name_of(local_site.cases[0]), **params)
    assert 400 <= answer.status_code < 500
    assert answer.status_code == status
    assert answer.json()["detail"]
    assert "passwd" not in answer.text


def test_the_log_holds_neither_names_nor_prompts(local_site: Site) -> None:
    prompt = "unlikely words of a planted prompt"
    assert infer(local_site.server, "heatmap", name_of(local_site.cases[0]), prompt=prompt).ok
    printed = local_site.server.printed().split("Application startup complete")[1]
    assert prompt not in printed
    assert local_site.cases[0].patient not in printed


def test_similar_cases_come_from_the_run_s_index(local_site: Site, modality: str) -> None:
    answer = infer(local_site.server, "similar_cases", name_of(local_site.cases[0]), k=3)
    if not (run_folder(modality) / "index").is_dir():
        assert answer.status_code == 404
        return
    cases = answer.json()["cases"]
    assert [case["rank"] for case in cases] == [1, 2, 3]
    assert cases[0]["cosine"] >= cases[1]["cosine"] >= cases[2]["cosine"] > 0
    assert all(case["text"] for case in cases)
