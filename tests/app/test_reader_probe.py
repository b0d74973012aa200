from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_medclip.app import reader_probe
from monai_medclip.app.reader_probe import FewReadingsError, ReaderImage, ReaderProbe, fit_reader_probe
from monai_medclip.audits import fit_logistic
from monai_medclip.engines import RESEARCH_USE, BundleModel


def unit(seed: int, width: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(width, generator=torch.Generator().manual_seed(seed)), dim=0)


def images(model: BundleModel, number: int = 4, *, signal: float = 1.0) -> list[ReaderImage]:
    """Every second patient has the first finding, and an embedding that lies on one side for it."""
    made, side = [], unit(999, model.clip.embed_dim)
    for k in range(number):
        embedding = 0.3 * unit(k, model.clip.embed_dim) + signal * (side if k % 2 else -side)
        said = {model.findings[0]: bool(k % 2)}
        made.append(ReaderImage(f"i{k}", torch.nn.functional.normalize(embedding, dim=0), said, f"p{k}"))
    return made


def test_the_probe_tells_what_the_readers_told(xray_model: BundleModel, tmp_path: Path) -> None:
    (fit,) = fit_reader_probe(xray_model, images(xray_model, 20), tmp_path).findings
    assert (fit.finding, fit.positives, fit.negatives, fit.patients) == (xray_model.findings[0], 10, 10, 20)
    assert (fit.auc, fit.folds) == (1.0, 5)
    probe = ReaderProbe.load(tmp_path, xray_model)
    assert probe is not None
    assert probe.findings == (fit.finding,)
    for image in images(xray_model, 30)[20:]:
        says = probe.probabilities(image.embedding)
        assert list(says) == [fit.finding]
        assert (says[fit.finding] > 0.5) is image.findings[fit.finding]


def test_probabilities_are_those_of_the_fit_itself(xray_model: BundleModel, tmp_path: Path) -> None:
    given, names = images(xray_model, 6), xray_model.findings[:2]
    given = [image._replace(findings={**image.findings, names[1]: k < 3}) for k, image in enumerate(given)]
    fit_reader_probe(xray_model, given, tmp_path, seed=4)
    table = np.stack([image.embedding.numpy() for image in given])
    labels = np.array([[image.findings[name] for name in names] for image in given], float)
    fit = fit_logistic(table, labels, names, groups=[image.patient for image in given], seed=4)
    probe = ReaderProbe.load(tmp_path, xray_model)
    assert probe is not None
    assert probe.findings == names
    says = probe.logits(given[4].embedding)
    assert list(says.values()) == pytest.approx(fit.scores(table[4:5])[0].tolist(), abs=1e-4)
    shares = 1 / (1 + np.exp(-np.array(list(says.values()))))
    assert list(probe.probabilities(given[4].embedding).values()) == pytest.approx(shares.tolist(), abs=1e-6)


def test_the_auc_is_of_images_that_were_not_fitted_on(xray_model: BundleModel, tmp_path: Path) -> None:
    """128 numbers can fit any labels of 40 images; labels that are chance stay chance on the others."""
    fit = fit_reader_probe(xray_model, images(xray_model, 40, signal=0.0), tmp_path).findings[0]
    assert fit.auc is not None
    assert 0.2 < fit.auc < 0.8


def test_a_patient_lies_in_one_fold(xray_model: BundleModel, tmp_path: Path) -> None:
    """Two equal images of each patient, at a right angle to all others: unseen patients all look the same to a probe.

    Whoever splits the patients looks the answers up.
    """
    directions = torch.eye(xray_model.clip.embed_dim)
    given = []
    for k in range(32):
        said = {xray_model.findings[0]: bool(k // 2 % 2)}
        given.append(ReaderImage(f"i{k}", directions[k // 2], said, f"p{k // 2}"))
    grouped = fit_reader_probe(xray_model, given, tmp_path).findings[0]
    split = fit_reader_probe(xray_model, [image._replace(patient="") for image in given], tmp_path).findings[0]
    assert (grouped.patients, split.patients) == (16, 32)
    assert grouped.auc == 0.5
    assert split.auc is not None
    assert split.auc > 0.85


def test_findings_without_two_patients_of_each_kind_are_left_out(xray_model: BundleModel, tmp_path: Path) -> None:
    first, second, third, *others = xray_model.findings
    width = xray_model.clip.embed_dim
    said = [{first: k < 2, second: k < 1, third: k < 2, "of another model": True} for k in range(4)]
    patients = ("a", "b", "c", "c")
    given = [ReaderImage(f"i{k}", unit(k, width), said[k], patients[k]) for k in range(4)]
    with pytest.raises(FewReadingsError, match=f"{second}: present in 1 and absent in 2 patients, at least 2"):
        fit_reader_probe(xray_model, given, tmp_path)  # a and b have it, c alone has it not
    assert ReaderProbe.load(tmp_path, xray_model) is None
    given[3] = given[3]._replace(patient="")
    record = fit_reader_probe(xray_model, given, tmp_path)
    assert [fit.finding for fit in record.findings] == [first, third]
    assert set(record.left_out) == {second, *others}
    assert record.left_out[others[0]].startswith("present in 0 and absent in 0")
    assert record.groups == ("a", "b", "c", "i3")


def test_unknown_readings_are_not_absent(xray_model: BundleModel, tmp_path: Path) -> None:
    given = [
        image if k < 4 else image._replace(findings={xray_model.findings[1]: True})
        for k, image in enumerate(images(xray_model, 8))
    ]
    fit = fit_reader_probe(xray_model, given, tmp_path).findings[0]
    assert (fit.positives, fit.negatives, fit.patients) == (2, 2, 4)


def test_the_record_says_what_was_done_and_names_nobody(xray_model: BundleModel, tmp_path: Path) -> None:
    record = fit_reader_probe(xray_model, images(xray_model), tmp_path)
    written = json.loads((tmp_path / xray_model.version / "record.json").read_text())
    assert written["model_version"] == xray_model.version
    assert written["findings"] == [fit._asdict() for fit in record.findings]
    assert written["images"] == ["i0", "i1", "i2", "i3"]
    assert written["mean_auc"] == record.mean_auc == np.mean([fit.auc for fit in record.findings])
    assert written["intended_use"] == RESEARCH_USE
    probe = ReaderProbe.load(tmp_path, xray_model)
    assert probe is not None
    assert probe.record == written


def test_a_new_fit_replaces_the_former_and_equal_readings_give_the_same(
    xray_model: BundleModel, tmp_path: Path
) -> None:
    place = tmp_path / xray_model.version
    names = []
    for number in (4, 4, 5, 6):
        names.append(fit_reader_probe(xray_model, images(xray_model, number), tmp_path).file)
        probe = ReaderProbe.load(tmp_path, xray_model)
        assert probe is not None
        assert probe.record["file"] == names[-1]
        assert len(probe.record["images"]) == number
    assert names[0] == names[1]
    assert {path.name for path in place.glob("*.pt")} == {names[2], names[3]}  # a reader of the former record finds it


def test_a_fit_that_is_killed_leaves_the_former_probe(
    xray_model: BundleModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit_reader_probe(xray_model, images(xray_model), tmp_path)
    before = ReaderProbe.load(tmp_path, xray_model)

    def killed(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reader_probe, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        fit_reader_probe(xray_model, images(xray_model, 6), tmp_path)
    after = ReaderProbe.load(tmp_path, xray_model)
    assert before is not None
    assert after is before


def test_another_model_has_another_probe(xray_model: BundleModel, ct_run: Path, tmp_path: Path) -> None:
    fit_reader_probe(xray_model, images(xray_model), tmp_path)
    assert ReaderProbe.load(tmp_path, BundleModel.open(ct_run)) is None


def test_a_damaged_probe_says_what_to_do(xray_model: BundleModel, tmp_path: Path) -> None:
    record = fit_reader_probe(xray_model, images(xray_model), tmp_path)
    (tmp_path / xray_model.version / record.file).write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged: train it again"):
        ReaderProbe.load(tmp_path, xray_model)
