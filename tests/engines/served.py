"""Runs as training leaves them, made in a moment: the real configuration, untrained weights, a learned tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from monai_medclip.bundle_folder import bundle_root
from monai_medclip.engines import write_json
from monai_medclip.transforms import ReportTokenizer

REPORTS = [
    "There is a nodule in the right lung. No pleural effusion. The heart is enlarged.",
    "Normal chest radiograph. The lungs are clear. No acute cardiopulmonary abnormality.",
    "Left pneumothorax. Consolidation. Mass. Cardiomegaly. No evidence of pleural fluid.",
]


def untrained_run(folder: Path, *overlays: str, rule: str = "positive_minus_normal", **overrides: Any) -> Path:
    """A run's folder; `overlays` name configs, `overrides` change keys of the configuration."""
    configs = Path(bundle_root()) / "configs"
    parser = ConfigParser()
    parser.read_config([str(configs / f"{name}.json") for name in ("train", *overlays)])
    parser.update({"output_dir": str(folder), "seed": 5, **overrides})
    config = json.loads(json.dumps(parser.get()))
    ReportTokenizer.train(REPORTS * 2, path=folder / "tokenizer")
    parser["tokenizer"] = {"_target_": "monai_medclip.transforms.ReportTokenizer.load", "source": f"{folder}/tokenizer"}
    torch.manual_seed(5)
    torch.save(parser.get_parsed_content("clip").state_dict(), folder / "model.pt")
    write_json(folder / "run.json", {"config": config})
    write_json(folder / "metrics.json", {"zero_shot": {"rule": rule}})
    return folder
