from pathlib import Path
from types import ModuleType

import pytest
import torch
from ignite.engine import Events

from monai_medclip.engines import GradientClipping, cosine_with_warmup


def test_learning_rate_rises_linearly_then_follows_a_cosine_to_zero() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = cosine_with_warmup(optimizer, range(10), max_epochs=2, warmup=0.2)  # 4 of 20 iterations
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:5] == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0])
    assert rates[12] == pytest.approx(1.0)  # half way down the cosine
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-12)


def test_warm_up_outside_0_to_1_is_refused() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    with pytest.raises(ValueError, match="share of all iterations"):
        cosine_with_warmup(optimizer, range(10), max_epochs=2, warmup=5)


def norms_at_steps(trainer, events) -> list[float]:
    norms: list[float] = []

    def note(engine) -> None:
        total = torch.cat([parameter.grad.flatten() for parameter in engine.network.parameters()]).norm()
        norms.append(total.item())

    trainer.add_event_handler(events, note)  # after the clipping handler
    trainer.run()
    return norms


def test_gradients_are_clipped_before_every_step(training: ModuleType, tmp_path: Path) -> None:
    trainer = training.make_trainer(str(tmp_path), epochs=1)
    GradientClipping(0.01).attach(trainer)
    assert norms_at_steps(trainer, Events.ITERATION_COMPLETED) == pytest.approx([0.01] * 5, rel=1e-3)


def test_accumulated_gradients_are_clipped_only_when_the_optimizer_steps(training: ModuleType, tmp_path: Path) -> None:
    trainer = training.make_trainer(str(tmp_path), epochs=1)
    trainer.accumulation_steps = 2
    GradientClipping(1e-3).attach(trainer)
    norms = norms_at_steps(trainer, Events.ITERATION_COMPLETED)  # steps after iterations 2, 4 and, at the end, 5
    assert [norm == pytest.approx(1e-3, rel=1e-3) for norm in norms] == [False, True, False, True, True]


def test_gradients_scaled_for_half_precision_are_unscaled_first(training: ModuleType, tmp_path: Path) -> None:
    trainer = training.make_trainer(str(tmp_path), epochs=1)
    clipping = GradientClipping(0.5)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    parameters = list(trainer.network.parameters())
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    parameters[0].grad.fill_(1024.0 * 1e-3)  # true gradients of 0.001 need no clipping
    trainer.scaler.scale(torch.ones(()))
    clipping(trainer)
    assert torch.allclose(parameters[0].grad, torch.full_like(parameters[0].grad, 1e-3))


def test_divergence_is_an_error_that_says_what_to_try(training: ModuleType, tmp_path: Path) -> None:
    trainer = training.make_trainer(str(tmp_path), epochs=1)
    with torch.no_grad():
        trainer.network.words.weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=r"iteration 1.*[Ll]ower the learning rate"):
        trainer.run()


def test_a_norm_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        GradientClipping(0)
