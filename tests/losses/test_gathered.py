"""Two processes with half of the batch each give the loss and the gradients of one process with all of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from monai_medclip.losses import ContrastiveLoss, SigLIPLoss
from monai_medclip.outputs import CLIPOutput

POSITIVES = torch.tensor([0, 1, 2, 0, 4, 2, 6, 7])  # right answers also lie on the other process
WORLD = 2


class Pair(nn.Module):
    """The smallest CLIP: two projections, a scale and a bias."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.image = nn.Parameter(torch.randn(6, 4, generator=generator))
        self.text = nn.Parameter(torch.randn(5, 4, generator=generator))
        self.log_scale = nn.Parameter(torch.tensor(2.0))
        self.bias = nn.Parameter(torch.tensor(-3.0))

    def forward(self, image: Tensor, text: Tensor) -> CLIPOutput:
        embeddings = (F.normalize(image @ self.image, dim=1), F.normalize(text @ self.text, dim=1))
        return CLIPOutput(*embeddings, self.log_scale.exp(), self.bias.clone())


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 6, generator=generator), torch.randn(8, 5, generator=generator)


def losses(gather: bool) -> dict[str, nn.Module]:
    return {
        "symmetric": ContrastiveLoss(gather=gather),
        "one-way": ContrastiveLoss("one-way", gather=gather, chunk_size=3),
        "single": ContrastiveLoss(multi_positive=False, gather=gather),
        "siglip": SigLIPLoss(gather=gather),
    }


def measure(model: nn.Module, image: Tensor, text: Tensor, positives: Tensor, gather: bool) -> dict[str, list[Tensor]]:
    found = {}
    for name, criterion in losses(gather).items():
        model.zero_grad()
        value = criterion(model(image, text), positives)
        value.backward()
        found[name] = [value.detach(), *(torch.zeros(()) if p.grad is None else p.grad for p in model.parameters())]
        found[name] = [tensor.clone() for tensor in found[name]]
    return found


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORLD)
    model = nn.parallel.DistributedDataParallel(Pair(), find_unused_parameters=True)
    own = slice(rank * 4, rank * 4 + 4)
    found = measure(model, *(part[own] for part in inputs()), POSITIVES[own], gather=True)
    uneven = "no error"
    try:
        ContrastiveLoss(gather=True)(Pair()(*(part[: 3 + rank] for part in inputs())), POSITIVES[: 3 + rank])
    except ValueError as error:
        uneven = str(error)
    torch.save({"found": found, "uneven": uneven}, f"{folder}/{rank}.pt")
    dist.barrier()  # neither goes while the other still talks to it
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory) -> list[dict]:
    folder: Path = tmp_path_factory.mktemp("gathered")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    commands = [[sys.executable, __file__, str(rank), str(folder)] for rank in range(WORLD)]
    running = [subprocess.Popen(command, env=environment) for command in commands]
    assert [process.wait(timeout=240) for process in running] == [0] * WORLD
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


@pytest.mark.parametrize("name", list(losses(False)))
def test_loss_and_gradients_equal_one_process(processes, name):
    expected = measure(Pair(), *inputs(), POSITIVES, gather=False)[name]
    for process in processes:
        for ours, theirs in zip(process["found"][name], expected):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_uneven_batches_are_refused_with_the_remedy(processes):
    for process in processes:
        assert "[3, 4]" in process["uneven"]
        assert "drop_last=True" in process["uneven"]


if __name__ == "__main__":
    worker(int(sys.argv[1]), sys.argv[2])
    os._exit(0)  # what it found is on disk; gloo's threads may abort an interpreter that ends on a busy machine
