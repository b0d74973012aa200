"""Pretrained CLIPs are evaluated by name, untrained: the figures are those of the library's own logits."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer, BertConfig

from monai_medclip.findings import NORMAL_PROMPTS, findings_named
from monai_medclip.networks import load_state_dict
from monai_medclip.transforms import ReportTokenizer

from ..networks.transformers_models import save_clip, save_siglip
from .runs import TINY_PHANTOM, run, workflow

FINDING = "cardiomegaly"
PROMPTS = [text for finding in findings_named([FINDING]) for text in (*finding.positive, *finding.negative)]
PROMPTS += NORMAL_PROMPTS


class Library(NamedTuple):
    """What a library itself computes."""

    images: Callable[[Tensor], Tensor]  # (B, 3, rows, columns) -> (B, E)
    texts: Callable[[Sequence[str]], Tensor]  # B texts -> (B, E)
    scale: float
    bias: float


def of_open_clip(folder: Path) -> Library:
    """With ``config.json`` of its BERT named as open_clip wants it, where it has one."""
    name = f"local-dir:{folder}"
    changed = {}
    if (folder / "config.json").is_file():
        text = open_clip.factory.get_model_config(name)["text_cfg"]
        changed["text_cfg"] = {**text, "hf_model_name": str(folder)}
    model: Any = open_clip.create_model(name, **changed).eval()
    tokenizer = open_clip.get_tokenizer(name)
    return Library(
        model.encode_image,
        lambda texts: model.encode_text(tokenizer(list(texts))),
        float(model.logit_scale.detach().exp()),
        0.0,
    )


def of_transformers(folder: Path) -> Library:
    model: Any = AutoModel.from_pretrained(folder).eval()
    scale = float(model.logit_scale.detach().exp())
    bias = float(model.logit_bias.detach()) if hasattr(model, "logit_bias") else 0.0

    def texts(prompts: Sequence[str]) -> Tensor:
        if model.config.model_type == "siglip":  # the context filled, without a mask
            tokens = {"input_ids": ReportTokenizer.load(folder)(prompts).input_ids}
        else:
            tokenizer = AutoTokenizer.from_pretrained(folder)
            tokens = tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt")
        return model.get_text_features(**tokens).pooler_output

    return Library(lambda images: model.get_image_features(images).pooler_output, texts, scale, bias)


@pytest.fixture
def biomed_clip(tmp_path: Path) -> Path:
    """As BiomedCLIP is published (a timm ViT, a BERT of the hub with an MLP behind it), and that BERT's config."""
    folder = tmp_path / "biomed"
    size = ReportTokenizer.train(PROMPTS * 2, path=folder, max_length=40).vocab_size
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertConfig(vocab_size=size, max_position_embeddings=40, **sizes).save_pretrained(folder)
    text = {
        "hf_model_name": str(folder),
        "hf_tokenizer_name": "owner/bert",
        "hf_proj_type": "mlp",
        "context_length": 40,
    }
    text |= {"hf_pooler_type": "cls_last_hidden_state_pooler", "hf_model_pretrained": False}
    vision = {"timm_model_name": "test_vit", "image_size": 160, "timm_pool": "", "timm_proj": "linear"}
    config = {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text}
    model = open_clip.CustomTextCLIP(**json.loads(json.dumps(config)))
    state = {**model.state_dict(), "text.transformer.embeddings.position_ids": torch.arange(40)[None]}
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    statistics = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}
    text["hf_model_name"] = "owner/bert"
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": statistics}))
    return folder


@pytest.fixture
def transformers_model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    request.param(folder, texts=PROMPTS)
    return folder


def options(folder: Path, library: str, phantom: Path, out: Path) -> dict[str, Any]:
    paths = {"source": str(folder), "dataset_dir": str(phantom), "output_dir": str(out)}
    return {**TINY_PHANTOM, **paths, "library": library, "findings": [FINDING], "baselines": {}}


@torch.no_grad()
def check(made: Any, library: Library, out: Path) -> None:
    """The logits of one finding, and its AUC, from the library's embeddings of the very images and prompts."""
    dataset = made.parser.get_parsed_content("test::dataset")
    items = [dataset[number] for number in range(len(dataset))]
    images = torch.stack([item["image"].as_tensor() for item in items]).expand(-1, 3, -1, -1)
    labels = [item["label"][made.parser.get_parsed_content("findings").index(FINDING)] for item in items]
    embedded = F.normalize(library.images(images), dim=-1)

    def mean(texts: Sequence[str]) -> Tensor:
        return F.normalize(F.normalize(library.texts(texts), dim=-1).mean(0), dim=0)

    (finding,) = findings_named([FINDING])
    positive, name = mean(finding.positive), mean([FINDING])
    logits = {
        "positive": library.scale * embedded @ positive + library.bias,
        "name": library.scale * embedded @ name + library.bias,
        "positive_minus_normal": library.scale * embedded @ (positive - mean(NORMAL_PROMPTS)),
        "positive_minus_negative": library.scale * embedded @ (positive - mean(finding.negative)),
        "name_pair": library.scale * embedded @ (name - mean([f"no {FINDING}"])),
    }
    found = json.loads((out / "metrics.json").read_text())["zero_shot"]
    with (out / "predictions.csv").open() as stream:
        written = [float(row[f"{FINDING} logit"]) for row in csv.DictReader(stream)]
    torch.testing.assert_close(torch.tensor(written), logits[found["rule"]], atol=1e-4, rtol=1e-4)
    assert logits[found["rule"]].std() > 1e-3
    assert found[f"{FINDING}_auc"] == pytest.approx(roc_auc_score(labels, logits[found["rule"]]))
    assert found["name_pair"][f"{FINDING}_auc"] == pytest.approx(roc_auc_score(labels, logits["name_pair"]))


# The tiny vocabulary of sentence pieces takes 24 tokens for a prompt.
@pytest.mark.parametrize("transformers_model", [save_clip, partial(save_siglip, context=32)], indirect=True)
def test_model_of_transformers(transformers_model: Path, phantom: Path, tmp_path: Path) -> None:
    made = run("evaluate", "pretrained", **options(transformers_model, "transformers", phantom, tmp_path / "out"))
    check(made, of_transformers(transformers_model), tmp_path / "out")
    encoder = made.parser.get_parsed_content("image_encoder")
    assert (encoder.mean, encoder.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.mark.parametrize("folder", ["clip_model", "biomed_clip"])
def test_model_of_open_clip(request: pytest.FixtureRequest, folder: str, phantom: Path, tmp_path: Path) -> None:
    model = request.getfixturevalue(folder)
    made = run("evaluate", "pretrained", **options(model, "open_clip", phantom, tmp_path / "out"))
    check(made, of_open_clip(model), tmp_path / "out")
    assert made.parser.get_parsed_content("max_length") == (40 if folder == "biomed_clip" else 32)


def test_questions_are_asked_of_a_model_that_was_never_trained_here(
    clip_model: Path, phantom: Path, tmp_path: Path
) -> None:
    chosen = {**options(clip_model, "open_clip", phantom, tmp_path / "out"), "bootstrap": 20}
    del chosen["baselines"]
    run("evaluate", "pretrained", **chosen, baselines={})
    run("zero_shot", "pretrained", **chosen, audits=[])
    run("retrieve", "pretrained", **chosen, audits=[], cases=1)
    run("audit", "pretrained", **chosen, audits=["negation"])
    figures = {
        name: json.loads((tmp_path / "out" / name / "metrics.json").read_text())
        for name in ("zero_shot", "retrieval", "audits")
    }
    evaluated = json.loads((tmp_path / "out" / "metrics.json").read_text())
    for name, value in evaluated["retrieval"].items():
        if not name.endswith(("_low", "_high")):
            assert figures["retrieval"]["retrieval"][name] == pytest.approx(value)
    auc = f"{FINDING}_auc"
    assert figures["zero_shot"]["zero_shot"][auc] == pytest.approx(evaluated["zero_shot"][auc])
    assert list(figures["zero_shot"]["tables"]) == ["the network"]
    assert set(figures["audits"]["audits"]) == {"negation"}
    assert not (tmp_path / "out" / "model.pt").exists()


def test_fine_tuning_goes_on_from_the_pretrained_weights_and_judges_its_best(phantom: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "model", tmp_path / "out"
    folder.mkdir()
    before = save_clip(folder, texts=PROMPTS).text_projection.weight
    chosen = options(folder, "transformers", phantom, out)
    trained = run("train", "pretrained", **chosen, max_epochs=3, learning_rate=0.01)
    best, last = load_state_dict(out / "model.pt"), load_state_dict(out / "last.pt")
    judged = trained.parser.get_parsed_content("clip").state_dict()
    assert {key for key, value in best.items() if not torch.equal(value, judged[key])} == set()
    assert any(not torch.equal(value, last[key]) for key, value in best.items())  # or the two could not be told apart
    assert not torch.equal(best["text_encoder.projection.weight"], before)
    first = json.loads((out / "metrics.json").read_text())
    run("evaluate", "pretrained", **chosen, trained="$@network.load(@model_file)")
    assert json.loads((out / "metrics.json").read_text()) == first


def test_pair_with_weights_of_other_names_is_read_as_documented(
    image_model: Path, text_model: Path, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "evaluate-a-pretrained-clip.md").read_text()
    (pair,) = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", page, flags=re.DOTALL))
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    pair |= {"image_model": str(image_model), "text_model": str(text_model), "embed_dim": 12}
    (tmp_path / "pair.json").write_text(json.dumps(pair))
    chosen = {**TINY_PHANTOM, "dataset_dir": str(phantom), "output_dir": "out", "baselines": {}}
    clip = workflow("evaluate", str(tmp_path / "pair"), **chosen).parser.get_parsed_content("clip")
    expected = {key: value + 0.01 for key, value in clip.state_dict().items() if key != "logit_bias"}
    pooler = {"text_encoder.text_encoder.pooler.dense.bias": torch.zeros(16)}
    torch.save({"model": {published(key): value for key, value in expected.items()} | pooler}, "published.pt")
    exec(compile(code, "evaluate-a-pretrained-clip.md", "exec"), {})
    asked = run("evaluate", str(tmp_path / "pair"), **chosen).parser.get_parsed_content("clip").state_dict()
    assert asked.keys() == {*expected, "logit_bias"}
    assert {key for key, value in expected.items() if not torch.equal(value, asked[key])} == set()


def published(key: str) -> str:
    """A weight's name in CXR-CLIP's files."""
    tower, _, rest = key.partition(".")
    if tower == "log_scale":
        return "logit_scale"
    inside = {"image_encoder": "resnet", "text_encoder": "text_encoder"}.get(tower, "projection")
    return f"{tower}.{inside}.{rest.removeprefix('trunk.').removeprefix('model.')}"
