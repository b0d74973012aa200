"""Search of a large index: CPU time over numpy's and torch's matmul + top-k and faiss's flat index, interleaved.

    python benchmarks/index_search.py [--entries 1000000] [--width 512] [--queries 1 16] [--rounds 5] [--threads 1]
    python benchmarks/index_search.py --approximate 20000 50000 100000 [--kinds hnsw ivfpq]

The first: exact search of embeddings that are random around one direction, which no index can prune by their order;
every round asks other queries. Also: whether all find the same ten, the time to read the scanned copy once, and the
peak memory of a process of its own that opens the index and searches it.

The second: when an approximate index pays, one query at a time, on embeddings that vary in 32 directions only, bent, as
those of a trained network vary in few. Also: its recall at 10, and the CPU time that building it took.
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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from monai_medclip.index import ApproximateIndex, EmbeddingIndex

K = 10
BATCH = 50_000
Search = Callable[[Tensor], np.ndarray]


def around_one_direction(count: int, width: int, generator: torch.Generator) -> Tensor:
    middle = torch.randn(width, generator=torch.Generator().manual_seed(0))
    return middle / middle.norm() + torch.randn(count, width, generator=generator) / width**0.5


def on_a_surface(count: int, width: int, generator: torch.Generator) -> Tensor:
    maps = torch.Generator().manual_seed(0)
    first, second = torch.randn(32, 128, generator=maps) / 32**0.5, torch.randn(128, width, generator=maps) / 128**0.5
    return torch.tanh(torch.randn(count, 32, generator=generator) @ first + 0.5) @ second


def build(
    folder: Path, entries: int, width: int, rows: Callable[[int, int, torch.Generator], Tensor] = around_one_direction
) -> EmbeddingIndex:
    generator = torch.Generator().manual_seed(0)
    index = EmbeddingIndex.create(folder, width, model="random")
    for first in range(0, entries, BATCH):
        count = min(BATCH, entries - first)
        ids = [{"id": str(first + number)} for number in range(count)]
        index.add(rows(count, width, generator), ids, model="random")
    return index


def contenders(index: EmbeddingIndex, threads: int) -> dict[str, Search]:
    rows = torch.from_numpy(np.array(index.embeddings()))

    def by_numpy(queries: Tensor) -> np.ndarray:
        scores = queries.numpy() @ rows.numpy().T
        best = np.argpartition(-scores, K, axis=1)[:, :K]
        return np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), 1), 1)

    found: dict[str, Search] = {
        "ours": lambda queries: index.search(queries, K).rows.numpy(),
        "torch matmul + top-k": lambda queries: (queries @ rows.T).topk(K, dim=1).indices.numpy(),
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
    return found | {"faiss flat": lambda queries: flat.search(queries.numpy(), K)[1]}


def interleaved(searches: Mapping[str, Search], rounds: Sequence[Tensor]) -> dict[str, list[float]]:
    """CPU seconds of each, per round, in random order within a round; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in searches}
    order = random.Random(0)
    for queries in rounds:
        for name in order.sample(list(searches), len(searches)):
            start = time.process_time()
            searches[name](queries)
            seconds[name].append(time.process_time() - start)
    return {name: spent[1:] for name, spent in seconds.items()}


def ratio(mine: Sequence[float], its: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(mine, its, strict=True))


def peak_mib(folder: Path, width: int, threads: int) -> float:
    """Peak resident memory of a process that searches, minus nothing: interpreter and torch included."""
    done = subprocess.run(
        [sys.executable, __file__, "--search", str(folder), "--width", str(width), "--threads", str(threads)],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout)


def report_exact(index: EmbeddingIndex, counts: Sequence[int], rounds: int, threads: int) -> None:
    searches = contenders(index, threads)
    copied = torch.zeros(len(index), index.width, dtype=torch.int8).view(torch.int64)
    searches_and_reading = searches | {"reading the copy": lambda queries: copied.sum().numpy()}
    for count in counts:
        asked = []
        for _ in range(rounds + 1):
            picked = torch.from_numpy(
                index.embeddings()[np.sort(np.random.default_rng(len(asked)).choice(len(index), count))]
            )
            asked.append(torch.nn.functional.normalize(picked + 0.02 * torch.randn(count, index.width), dim=1))
        answers = {name: search(asked[-1]) for name, search in searches.items()}
        seconds = interleaved(searches_and_reading, asked)
        print(f"\n{len(index)} x {index.width}, {count} queries, {threads} threads; CPU ms, medians")
        for name, spent in seconds.items():
            same = f"  same ten {(answers[name] == answers['ours']).mean():.3f}" if name in answers else ""
            over = ratio(seconds["ours"], spent)
            print(f"{name:26s} {1e3 * statistics.median(spent):9.1f}  ours over it {over:5.2f}{same}")


def report_approximate(folder: Path, entries: int, width: int, kinds: Sequence[str], rounds: int) -> None:
    exact = build(folder, entries, width, on_a_surface)
    asked = on_a_surface(10 * (rounds + 1), width, torch.Generator().manual_seed(1))
    searches: dict[str, Search] = {"exact": lambda queries: exact.search(queries, K).rows.numpy()}
    figures: dict[str, tuple[float, float]] = {}
    for kind in kinds:
        start = time.process_time()
        index = ApproximateIndex.build(exact, kind)
        figures[kind] = time.process_time() - start, index.recall_at(K, asked)
        searches[kind] = lambda queries, index=index: index.search(queries, K).rows.numpy()
    seconds = interleaved(searches, asked[:, None].unbind(0))
    print(f"\n{entries} x {width}, 1 query; CPU ms, medians; exact {1e3 * statistics.median(seconds['exact']):.1f}")
    for kind, (built, recall) in figures.items():
        saved = statistics.median(seconds["exact"]) - statistics.median(seconds[kind])
        pays = f"pays from {built / saved:,.0f} queries on" if saved > 0 else "does not pay"
        spent, over = 1e3 * statistics.median(seconds[kind]), ratio(seconds[kind], seconds["exact"])
        found = f"recall at {K} {recall:.3f}"
        print(f"{kind:8s} {spent:7.2f}  over exact {over:5.2f}  {found}  built in {built:.0f} s: {pays}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--approximate", type=int, nargs="+", help="sizes; instead of the exact search")
    parser.add_argument("--kinds", nargs="+", default=["hnsw", "ivfpq"])
    parser.add_argument("--search", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.search is not None:
        EmbeddingIndex(options.search).search(torch.randn(16, options.width), K)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "index"
        if options.approximate:
            import faiss

            faiss.omp_set_num_threads(options.threads)
            for entries in options.approximate:
                report_approximate(folder / str(entries), entries, options.width, options.kinds, options.rounds)
            return
        index = build(folder, options.entries, options.width)
        print(f"peak memory of a searching process: {peak_mib(folder, options.width, options.threads):.0f} MiB")
        report_exact(index, options.queries, options.rounds, options.threads)


if __name__ == "__main__":
    main()
