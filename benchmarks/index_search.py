"""Exact search of a large index: CPU time over numpy's and torch's matmul + top-k and faiss's flat index, interleaved.

    python benchmarks/index_search.py [--entries 1000000] [--width 512] [--queries 1 16] [--rounds 5] [--threads 1]

Embeddings are random around one direction, as those of images of one kind are. Also: whether all find the same ten, and
the peak memory of a process of its own that opens the index and searches it.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from monai_medclip.index import EmbeddingIndex

K = 10
BATCH = 50_000


def build(folder: Path, entries: int, width: int) -> EmbeddingIndex:
    generator = torch.Generator().manual_seed(0)
    middle = torch.nn.functional.normalize(torch.randn(width, generator=generator), dim=0)
    index = EmbeddingIndex.create(folder, width, model="random")
    for first in range(0, entries, BATCH):
        count = min(BATCH, entries - first)
        rows = middle + torch.randn(count, width, generator=generator) / width**0.5
        index.add(rows, [{"id": str(first + n)} for n in range(count)], model="random")
    return index


def contenders(index: EmbeddingIndex, queries: torch.Tensor, threads: int) -> dict[str, Callable[[], np.ndarray]]:
    rows = torch.from_numpy(np.array(index.embeddings()))
    asked = queries.numpy()

    def by_numpy() -> np.ndarray:
        scores = asked @ rows.numpy().T
        best = np.argpartition(-scores, K, axis=1)[:, :K]
        return np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), 1), 1)

    found: dict[str, Callable[[], np.ndarray]] = {
        "ours": lambda: index.search(queries, K).rows.numpy(),
        "torch matmul + top-k": lambda: (queries @ rows.T).topk(K, dim=1).indices.numpy(),
        "numpy matmul + partition": by_numpy,
    }
    try:
        import faiss
    except ImportError:
        print("faiss is not installed: left out")
        return found
    faiss.omp_set_num_threads(threads)
    flat = faiss.IndexFlatIP(rows.shape[1])
    flat.add(rows.numpy())
    return found | {"faiss flat": lambda: flat.search(asked, K)[1]}


def peak_mib(folder: Path, width: int, threads: int) -> float:
    """Peak resident memory of a process that searches, minus nothing: interpreter and torch included."""
    done = subprocess.run(
        [sys.executable, __file__, "--search", str(folder), "--width", str(width), "--threads", str(threads)],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--search", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.search is not None:
        EmbeddingIndex(options.search).search(torch.randn(16, options.width), K)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "index"
        index = build(folder, options.entries, options.width)
        print(f"peak memory of a searching process: {peak_mib(folder, options.width, options.threads):.0f} MiB")
        for count in options.queries:
            picked = torch.from_numpy(np.array(index.embeddings()[:: max(1, len(index) // count)][:count]))
            queries = torch.nn.functional.normalize(picked + 0.02 * torch.randn(count, options.width), dim=1)
            all_of_them = contenders(index, queries, options.threads)
            answers = {name: call() for name, call in all_of_them.items()}
            seconds: dict[str, list[float]] = {name: [] for name in all_of_them}
            order = random.Random(0)
            for _ in range(options.rounds):
                for name in order.sample(list(all_of_them), len(all_of_them)):
                    start = time.process_time()
                    all_of_them[name]()
                    seconds[name].append(time.process_time() - start)
            print(f"\n{len(index)} x {options.width}, {count} queries, {options.threads} threads; CPU ms, medians")
            own = seconds["ours"]
            for name, spent in seconds.items():
                ratio = statistics.median(mine / its for mine, its in zip(own, spent, strict=True))
                same = float((answers[name] == answers["ours"]).mean())
                print(
                    f"{name:26s} {1e3 * statistics.median(spent):9.1f}  ours over it {ratio:5.2f}  same ten {same:.3f}"
                )


if __name__ == "__main__":
    main()
