"""A reader corrects findings in a viewer; they stay out of the archive, and a probe learns from them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

pytest.importorskip("monailabel", reason="pip install 'monai-medclip[label]', or run .ci/e2e")

from monailabel.client import MONAILabelClient

from .cases import Case
from .conftest import Site
from .requests_to import infer
from .servers import Archive

PATIENCE_S = 180


def present(cases: list[Case]) -> dict[str, set[str]]:
    """Findings of every series, as the phantom knows them."""
    found: dict[str, set[str]] = {}
    for case in cases:
        found.setdefault(str(case.header.SeriesInstanceUID), set()).add(case.finding)
    return found


def corrected(client: MONAILabelClient, image: str, findings: set[str], folder: Path) -> Path:
    """What 3D Slicer's MONAI Label module submits once the boxes of absent findings are deleted."""
    file, _ = client.infer("findings", image, {})
    document = json.loads(Path(file).read_text(encoding="utf-8"))
    kept = [box for box in document["markups"] if any(box["name"].startswith(finding) for finding in findings)]
    submitted = folder / f"{image}.json"
    submitted.write_text(json.dumps({"@schema": document["@schema"], "markups": kept}), encoding="utf-8")
    return submitted


def trained(client: MONAILabelClient) -> dict:
    """Train from the viewer, and wait until it is done."""
    client.train_start("reader_probe", {})
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        status = client.train_status()
        if status.get("status") in ("DONE", "ERROR"):
            return status
        time.sleep(0.5)
    pytest.fail(f"the training has not ended within {PATIENCE_S} s")


def test_corrected_findings_train_a_probe_and_nothing_is_pushed(
    archive_sites: dict[str, Site], archive: Archive, modality: str, tmp_path: Path
) -> None:
    site = archive_sites[modality]
    client = MONAILabelClient(site.server.url, tmpdir=str(tmp_path))
    before = {str(one.SeriesInstanceUID) for one in archive.search("series")}
    truth = present(site.cases)
    for image, findings in truth.items():
        client.save_label(image, str(corrected(client, image, findings, tmp_path)), "final", {})
    assert {str(one.SeriesInstanceUID) for one in archive.search("series")} == before
    assert trained(client)["status"] == "DONE"
    image, findings = next(iter(truth.items()))
    probe = infer(site.server, "zero_shot", image).json()["reader_probe"]
    assert probe
    assert all(0 <= probability <= 1 for probability in probe.values())
    of_present = [probability for finding, probability in probe.items() if finding in findings]
    of_absent = [probability for finding, probability in probe.items() if finding not in findings]
    assert not of_present or not of_absent or min(of_present) > max(of_absent)  # an image that it has learned from
    said = site.server.printed()
    assert not [series for series in truth if series in said]  # neither the server nor the processes that it started
