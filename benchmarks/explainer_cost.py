"""What an explanation costs, beside one plain forward pass of the same ViT-B/16 without gradients.

    python benchmarks/explainer_cost.py [--rounds 15] [--batch 1] [--threads 1] [--out FILE]

One network from random weights, 224 pixels, and a zero-shot classifier with 14 directions that are given, not encoded,
so that no text is computed. The reference is timm's own forward, which computes every token of every block. Our encoder
leaves out what is not read in the last block; its forward stands beside it. All take turns in every round, in shuffled
order, and process CPU time is compared: on a busy machine it is steadier than wall time. The first, uncounted round
compiles (numba) and holds the comparison of scores that the first call of each method makes; `checked` makes it in
every call. Memory is the peak of what torch's CPU allocator holds during the call: its ratio without the weights, and
with them (+w), as the process has both.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from monai_medclip.explainers import AttentionGradCAM, Chefer, Explainer, GradECLIP, TokenGradCAM
from monai_medclip.explainers.medgrad_eclip import MedGradECLIP
from monai_medclip.networks import CLIP, TimmImageEncoder, ZeroShotClassifier

REFERENCE = "plain forward (timm)"


class Contender(NamedTuple):
    name: str
    call: Callable[[], object]
    goal: float | None  # times the reference


class NoText(nn.Module):
    """A text side that is never asked."""

    width, vocab_size, max_length = 64, 1, 1

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        raise AssertionError("no text is encoded here")


def zero_shot(clip: CLIP, prompts: int) -> ZeroShotClassifier:
    """A classifier whose directions are random unit vectors."""
    names = [{"name": f"finding {i}", "positive": ["given"]} for i in range(prompts)]
    classifier = ZeroShotClassifier(clip, names, tokenizer=None).eval()
    classifier.directions.copy_(nn.functional.normalize(torch.randn_like(classifier.directions), dim=1))
    return classifier


def smooth_images(batch: int) -> Tensor:
    """Gray noise at two scales, in the channels of the network: it has structure, as entropy needs some."""
    coarse = nn.functional.interpolate(torch.randn(batch, 1, 14, 14), size=224, mode="bicubic")
    return (coarse + 0.1 * torch.randn(batch, 1, 224, 224)).expand(-1, 3, -1, -1).contiguous()


def contenders(batch: int, prompts: int) -> list[Contender]:
    clip = CLIP(TimmImageEncoder("vit_base_patch16_224"), NoText()).eval()
    image, many, one = smooth_images(batch), zero_shot(clip, prompts), zero_shot(clip, 1)

    def forward(network: nn.Module) -> Tensor:
        with torch.no_grad():
            return network(image)

    def explain(name: str, explainer: Explainer, classifier: ZeroShotClassifier, goal: float | None) -> Contender:
        return Contender(name, lambda: explainer.explain(classifier, image), goal)

    found = [
        Contender(REFERENCE, lambda: forward(clip.image_encoder.trunk), None),
        Contender("plain forward (ours)", lambda: forward(clip.image_encoder), None),
    ]
    for kind in (GradECLIP, MedGradECLIP, AttentionGradCAM):
        found.append(explain(kind.name, kind(), many, 1.0))
        found.append(explain(f"{kind.name}, checked", kind(verify=True), many, 1.1))
    found.append(explain(TokenGradCAM.name, TokenGradCAM(), many, 1.15))
    found.append(explain(f"{TokenGradCAM.name}, checked", TokenGradCAM(verify=True), many, None))
    found.append(explain(f"{Chefer.name}, all blocks, 1 prompt", Chefer(), one, 2.2))
    return found


def cpu_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def take_turns(all_of_them: list[Contender], rounds: int) -> dict[str, list[float]]:
    """CPU seconds per contender, one for each round; the round before the first is not counted."""
    seconds: dict[str, list[float]] = {contender.name: [] for contender in all_of_them}
    order = random.Random(0)
    for number in range(rounds + 1):
        for contender in order.sample(all_of_them, len(all_of_them)):
            spent = cpu_seconds(contender.call)
            if number:
                seconds[contender.name].append(spent)
    return seconds


def peak_bytes(call: Callable[[], object]) -> int:
    """The most that torch's CPU allocator holds at once beyond what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    held = peak = 0
    events = (event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]")
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--prompts", type=int, default=14)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    all_of_them = contenders(options.batch, options.prompts)
    seconds = take_turns(all_of_them, options.rounds)
    memory = {contender.name: peak_bytes(contender.call) for contender in all_of_them}
    weights = sum(p.numel() * p.element_size() for p in TimmImageEncoder("vit_base_patch16_224").parameters())
    settings = {"batch": options.batch, "prompts": options.prompts, "threads": options.threads}
    print({**settings, "rounds": options.rounds, "torch": torch.__version__}, "\n")
    titles = ("CPU ms", "ratio", "range over rounds", "goal", "MiB", "ratio", "+w")
    print("{:38s} {:>8s} {:>6s} {:>18s} {:>5s} {:>7s} {:>6s} {:>5s}".format("", *titles))
    results = {}
    for name, _, goal in all_of_them:
        rounds = [mine / plain for mine, plain in zip(seconds[name], seconds[REFERENCE])]
        ratio = median(seconds[name]) / median(seconds[REFERENCE])
        held = memory[name] / memory[REFERENCE]
        resident = (weights + memory[name]) / (weights + memory[REFERENCE])
        results[name] = {"ratio": ratio, "goal": goal, "memory_ratio": held, "memory_ratio_with_weights": resident}
        spread = f"{min(rounds):.2f} to {max(rounds):.2f}"
        print(
            f"{name:38s} {1000 * median(seconds[name]):8.1f} {ratio:6.3f} {spread:>18s} {goal or '':>5} "
            f"{memory[name] / 2**20:7.1f} {held:6.2f} {resident:5.2f}"
        )
    if options.out:
        options.out.write_text(json.dumps({**settings, "cpu_seconds": seconds, "results": results}, indent=2))


if __name__ == "__main__":
    if "OMP_WAIT_POLICY" not in os.environ:  # threads that wait must sleep: spinning would count as CPU time
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"})
    main()
