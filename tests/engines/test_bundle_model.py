"""A trained bundle answers: the model's own scores, maps that find home, new prompts from what is kept."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from monai_medclip.bundle_folder import bundle_root
from monai_medclip.data import make_phantom
from monai_medclip.engines import BundleModel, pack_bundle, trained_config
from monai_medclip.engines.stored_embeddings import weights_digest
from monai_medclip.index import EmbeddingIndex
from monai_medclip.transforms import BadInputError

from .served import untrained_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def ct_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_run(tmp_path_factory.mktemp("ct_run"), "ct", volume_size=[16, 16, 16], voxel_mm=[20.0, 20.0, 20.0])


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    make_phantom(folder, patients=2, image_size=96, progress=False)
    return next(folder.rglob("*.dcm"))


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    make_phantom(folder, patients=1, image_size=32, modality="CT", slices=24, progress=False)
    return next(folder.rglob("*.dcm")).parent


@pytest.fixture
def model(run: Path) -> BundleModel:
    return BundleModel.open(run)


def test_scores_are_those_of_the_bundle_s_own_inference(run: Path, film: Path, model: BundleModel) -> None:
    workflow = ConfigWorkflow(
        f"{bundle_root()}/configs/inference.json", workflow_type="infer", output_dir=str(run), image=str(film)
    )
    workflow.initialize()
    expected = workflow.network_def(workflow.dataset[0]["image"][None])[0]
    found = model.scores(model.study(film))
    assert [score.finding for score in found] == list(workflow.network_def.findings)
    np.testing.assert_allclose([score.logit for score in found], expected.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose([score.probability for score in found], expected.sigmoid().detach(), rtol=1e-5)


def test_a_single_rule_has_no_probability(tmp_path: Path, film: Path) -> None:
    model = BundleModel.open(untrained_run(tmp_path, rule="positive"))
    assert {score.probability for score in model.scores(model.study(film))} == {None}


def test_a_finding_s_name_is_asked_as_that_finding_and_a_sentence_as_it_stands(model: BundleModel, film: Path) -> None:
    study = model.study(film)
    by_name = {score.finding: score.logit for score in model.scores(study)}
    (named,) = model.scores(study, ["Pleural Effusion"])
    assert named.finding == "pleural effusion"
    assert named.logit == pytest.approx(by_name["pleural effusion"], rel=1e-5)
    (sentence,) = model.scores(study, ["The heart is enlarged."])
    assert sentence.finding == "The heart is enlarged."
    assert sentence.probability is not None


@pytest.mark.parametrize("prompts", [[], [""], ["   "], ["x" * 301], ["a\nb"], ["nodule"] * 17])
def test_bad_prompts_are_refused(model: BundleModel, film: Path, prompts: list[str]) -> None:
    with pytest.raises(ValueError, match="prompt"):
        model.heatmaps(model.study(film), prompts)


def test_maps_explain_the_score_and_come_back_to_the_file_s_grid(model: BundleModel, film: Path) -> None:
    study = model.study(film)
    found = model.heatmaps(study, ["nodule", "left pleural effusion"])
    assert found.method == model.methods[0] == "recommended"
    assert found.maps.shape == (2, 128, 128)
    assert [score.logit for score in found.scores] == pytest.approx(
        [model.scores(study, [prompt])[0].logit for prompt in found.prompts], abs=1e-4
    )
    assert model.scanner(found.maps).shape == (2, 96, 96)
    assert model.picture(study).shape == (128, 128)


def test_volumes_are_served_the_same_way(ct_run: Path, scan: Path) -> None:
    model = BundleModel.open(ct_run)
    assert model.volumes
    found = model.heatmaps(model.study(scan), ["nodule"], method="Grad-ECLIP")
    assert model.scanner(found.maps).shape == (1, 32, 32, 24)
    assert model.picture(found.study).shape == (16, 16, 16)


@pytest.mark.parametrize("method", ["recommended", "Grad-ECLIP", "Chefer", "Grad-CAM (patch tokens)"])
def test_a_new_prompt_from_kept_tokens_gives_the_map_of_a_fresh_model(run: Path, film: Path, method: str) -> None:
    kept, fresh = BundleModel.open(run), BundleModel.open(run)
    kept.heatmaps(kept.study(film), ["nodule"], method=method)
    asked = kept.heatmaps(kept.study(film), ["mass"], method=method)
    expected = fresh.heatmaps(fresh.study(film), ["mass"], method=method)
    torch.testing.assert_close(asked.maps.as_tensor(), expected.maps.as_tensor())


def test_a_new_prompt_does_not_run_the_encoder_up_to_the_last_block_again(
    model: BundleModel, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, encoder = model.study(film), model.clip.image_encoder
    for prompt in ("nodule", "mass"):  # the first call of a method compares scores, the second keeps tokens
        model.heatmaps(study, [prompt], method="Grad-ECLIP")
    asked: list[int] = []
    original = encoder.tokens_entering
    monkeypatch.setattr(encoder, "tokens_entering", lambda *a: asked.append(1) or original(*a), raising=False)
    model.heatmaps(study, ["pneumothorax"], method="Grad-ECLIP")
    assert asked == []


def test_the_class_token_is_a_choice_of_one_method(model: BundleModel, film: Path) -> None:
    study, method = model.study(film), "Grad-CAM (patch tokens)"
    without, with_cls = (model.heatmaps(study, ["nodule"], method=method, cls=cls) for cls in ("exclude", "include"))
    assert not torch.equal(without.maps.as_tensor(), with_cls.maps.as_tensor())
    with pytest.raises(ValueError, match="a choice of"):
        model.heatmaps(study, ["nodule"], method="Chefer", cls="include")
    with pytest.raises(ValueError, match="unknown method"):
        model.heatmaps(study, ["nodule"], method="LIME")


def test_a_report_is_grounded_sentence_by_sentence_and_its_words_weighed(model: BundleModel, film: Path) -> None:
    report = "There is a nodule.  The heart is enlarged."
    found, spans = model.ground(model.study(film), report)
    assert [report[slice(*span)] for span in spans] == ["There is a nodule.", "The heart is enlarged."]
    assert found.maps.shape == (2, 128, 128)
    words = model.words(model.study(film), report)
    assert [report[start:end] for start, end in words.spans.tolist()] == list(words.words)
    with pytest.raises(ValueError, match="report"):
        model.ground(model.study(film), "  ")
    with pytest.raises(ValueError, match="sentences"):
        model.ground(model.study(film), "A nodule. " * 65)


def test_a_changed_file_is_read_again(model: BundleModel, film: Path, tmp_path: Path) -> None:
    copy = tmp_path / "film.dcm"
    copy.write_bytes(film.read_bytes())
    first = model.study(copy)
    assert model.study(copy) is first
    other = next(path for path in film.parent.glob("*.dcm") if path != film)
    copy.write_bytes(other.read_bytes())
    assert model.study(copy).key != first.key


def test_what_is_kept_is_bounded(run: Path, film: Path, tmp_path: Path) -> None:
    model = BundleModel.open(run, studies=2)
    for number in range(5):
        copy = tmp_path / f"{number}.dcm"
        copy.write_bytes(film.read_bytes())
        model.heatmaps(model.study(copy), ["nodule"])
        model.heatmaps(model.study(copy), ["mass"])
        model.heatmaps(model.study(copy), ["pneumothorax"])
    assert (len(model._studies), len(model._batches), len(model._tokens), len(model._answers)) == (2, 2, 2, 8)


def test_many_threads_get_their_own_answers(model: BundleModel, film: Path) -> None:
    study, prompts = model.study(film), [f"nodule number {number}" for number in range(8)]
    expected = {prompt: model.heatmaps(study, [prompt]).maps.as_tensor().clone() for prompt in prompts}
    model._answers._kept.clear()
    found: dict[str, torch.Tensor] = {}
    threads = [
        threading.Thread(target=lambda p=prompt: found.update({p: model.heatmaps(study, [p]).maps.as_tensor()}))
        for prompt in prompts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == set(prompts)
    for prompt in prompts:
        torch.testing.assert_close(found[prompt], expected[prompt])


def test_faithfulness_is_the_model_s_score_of_masked_images(model: BundleModel, film: Path) -> None:
    found = model.heatmaps(model.study(film), ["nodule"])
    check = model.faithfulness(found)
    assert check.score == pytest.approx(found.scores[0].logit, abs=1e-4)
    assert check.supports == (check.hottest_masked < check.elsewhere_masked)


def test_bad_files_keep_their_error(model: BundleModel, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="there is no such file"):
        model.study(tmp_path / "absent.dcm")
    (tmp_path / "bad.dcm").write_bytes(b"no image")
    with pytest.raises(BadInputError, match="not a DICOM file"):
        model.study(tmp_path / "bad.dcm")


def test_a_folder_with_one_file_is_that_film(model: BundleModel, film: Path, tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "1.dcm").write_bytes(film.read_bytes())
    assert model.study(tmp_path / "series").path.endswith("1.dcm")


def test_a_run_is_asked_as_it_was_trained(ct_run: Path) -> None:
    config = trained_config(ct_run)
    assert config["volume_size"] == [16, 16, 16]
    assert config["volumes"] is True
    assert config["network_def"]["_target_"].endswith("ZeroShotClassifier")
    assert config["tokenizer"]["_target_"].endswith("ReportTokenizer.load")


def test_a_packed_bundle_gives_the_same_answers(run: Path, film: Path, model: BundleModel, tmp_path: Path) -> None:
    packed = pack_bundle(run, tmp_path / "bundle")
    again = BundleModel.open(packed)
    assert again.version == model.version
    assert again.scores(again.study(film)) == model.scores(model.study(film))
    assert str(run) not in (packed / "configs" / "explain.json").read_text()
    with pytest.raises(FileExistsError):
        pack_bundle(run, packed)


def test_the_index_of_a_model_is_found_and_another_s_refused(model: BundleModel, film: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no index"):
        model.index(tmp_path)
    own = weights_digest(model.clip, "False", "embedding")
    for name, made_by in (("other", "0123456789abcdef"), ("own", own)):
        index = EmbeddingIndex.create(tmp_path / name / "images", model.clip.embed_dim, model=made_by)
        index.add(model.embedding(model.study(film))[None], [{"id": name}], model=made_by)
    assert model.index(tmp_path).records([0])[0]["id"] == "own"
    assert model.index(tmp_path / "own" / "images").records([0])[0]["id"] == "own"
    with pytest.raises(ValueError, match="are not of"):
        model.index(tmp_path / "other")


def test_other_folders_are_refused(tmp_path: Path, run: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no trained bundle"):
        BundleModel.open(tmp_path)
    (tmp_path / "run.json").write_bytes((run / "run.json").read_bytes())
    with pytest.raises(FileNotFoundError, match=r"no model\.pt"):
        BundleModel.open(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match="no JSON"):
        BundleModel.open(tmp_path)


class Planted:
    """Code that unpickling runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_weights_that_carry_code_are_refused_and_nothing_runs(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    torch.save({"weight": Planted(tmp_path / "planted")}, tmp_path / "run" / "model.pt")
    with pytest.raises(ValueError, match="cannot be read into its network"):
        BundleModel.open(tmp_path / "run")
    assert not (tmp_path / "planted").exists()
