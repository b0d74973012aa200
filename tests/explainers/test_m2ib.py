"""M2IB: the divergence by the book, tokens that matter keep their information, and the paper's tendencies."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from monai_medclip.explainers import m2ib
from monai_medclip.explainers.m2ib import INITIAL_ALPHA, M2IB
from monai_medclip.networks import QKV
from monai_medclip.networks.attention import StagedAttention

from .quadrants import Quadrants, peaks_inside, real_classifier

GRIDS = {2: (4, 6), 3: (2, 4, 6)}  # patches of 2 pixels per axis


class Still(nn.Module):
    """A stage with one CLS token that changes nothing: its values are zero."""

    prefix_tokens = 1

    @property
    def entrance(self) -> nn.Module:
        return self

    def qkv(self, tokens: Tensor) -> QKV:
        return QKV(*(0 * tokens.unsqueeze(1) for _ in range(3)))

    def finish(self, tokens: Tensor, context: Tensor) -> Tensor:
        return tokens + context

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens


class PatchMeans(nn.Module, StagedAttention):
    """Tokens are the patches' mean intensities, twice, behind an empty CLS token; the features are those means."""

    mean, std, in_channels = (0.5,), (0.25,), 1

    def __init__(self, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.grid_size, self.spatial_dims = grid, len(grid)
        self.image_size = tuple(2 * size for size in grid)
        self.width = int(torch.tensor(grid).prod())
        self.blocks = nn.ModuleList([Still(), Still()])

    def _stages(self) -> Sequence[Still]:
        return list(self.blocks)

    def _embed(self, image: Tensor) -> Tensor:
        pool = nn.functional.avg_pool2d if image.ndim == 4 else nn.functional.avg_pool3d
        patches = pool(image, 2).flatten(2).transpose(1, 2).expand(-1, -1, 2)  # (B, P, 2)
        return nn.functional.pad(patches, (0, 0, 1, 0))

    def _pool(self, tokens: Tensor) -> Tensor:
        return tokens[:, 1:].mean(-1)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self._embed(image)
        for block in self.blocks:
            tokens = block(tokens)
        return self._pool(tokens)


class PatchQuadrants(Quadrants):
    """`Quadrants` over patch tokens."""

    def __init__(self, spatial_dims: int, **options: object) -> None:
        super().__init__(spatial_dims, **options)  # type: ignore[arg-type]
        self.image_encoder = PatchMeans(GRIDS[spatial_dims])
        size = self.image_encoder.image_size
        self.corners = torch.zeros(2, *size)
        self.corners[(0, *(slice(0, n // 2) for n in size))] = 1.0
        self.corners[(1, *(slice(n // 2, n) for n in size))] = 1.0
        inner = self.corners[(slice(None), *(slice(0, None, 2),) * spatial_dims)].flatten(1)
        self.weights = nn.Parameter(inner / inner[0].sum())


def flat_images(classifier: Quadrants, batch: int = 2) -> Tensor:
    """Intensities between 1 and 1.2: tokens differ little, so that their own length decides nothing."""
    size = classifier.image_encoder.image_size
    return 1 + 0.2 * torch.rand(batch, 1, *size, generator=torch.Generator().manual_seed(1))


def test_divergence_is_that_of_the_two_normals() -> None:
    tokens, alpha = torch.randn(2, 3, 4), 3 * torch.randn(2, 3, 4)
    kept = alpha.sigmoid()
    expected = kl_divergence(Normal(kept * tokens, 1 - kept), Normal(0.0, 1.0))
    torch.testing.assert_close(m2ib.kl_divergence(tokens, alpha), expected, rtol=1e-3, atol=1e-5)
    assert m2ib.kl_divergence(tokens, torch.full_like(tokens, 60.0)).isfinite().all()
    torch.testing.assert_close(m2ib.kl_divergence(tokens, torch.full_like(tokens, -60.0)), torch.zeros(2, 3, 4))


def test_mixture_is_token_or_noise_at_the_ends() -> None:
    tokens, noise = torch.randn(2, 3, 4), torch.randn(5, 3, 4)
    torch.testing.assert_close(m2ib.mixed(tokens, torch.full_like(tokens, 40.0), noise)[:, 0], tokens)
    torch.testing.assert_close(m2ib.mixed(tokens, torch.full_like(tokens, -40.0), noise)[1], noise)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_information_stays_in_each_findings_corner(spatial_dims: int) -> None:
    classifier = PatchQuadrants(spatial_dims)
    image = flat_images(classifier)
    maps, scores = M2IB(beta=0.01).explain(classifier, image)
    assert maps.shape == (2, 2, *image.shape[2:])
    assert maps.min() >= 0
    assert peaks_inside(maps, classifier.corners)
    with torch.no_grad():
        torch.testing.assert_close(scores, classifier.eval()(image))


def test_without_compression_tokens_that_do_not_count_are_left_as_they_were() -> None:
    classifier = PatchQuadrants(2).eval()
    image = flat_images(classifier)
    maps, _ = M2IB(beta=0.0)._maps(classifier, image, {})
    tokens = classifier.image_encoder._embed(image)[:, 1:]
    untouched = m2ib.kl_divergence(tokens, torch.full_like(tokens, INITIAL_ALPHA)).sum(-1).reshape(2, 4, 6)
    torch.testing.assert_close(maps[:, 0, 2:], untouched[:, 2:])
    assert (maps[:, 0, :2, :3] > untouched[:, :2, :3]).all()  # showing more of them raises the score


def test_compression_takes_information_away() -> None:
    classifier, image = real_classifier(2)
    weak, strong = (M2IB(beta=beta, samples=2)(classifier, image).mean() for beta in (0.001, 10.0))
    assert strong < 0.5 * weak


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_an_image_gets_the_same_map_in_any_batch_and_twice(spatial_dims: int) -> None:
    classifier, image = real_classifier(spatial_dims)
    together = M2IB(samples=2, steps=3, seed=4)(classifier, image)
    assert torch.equal(together, M2IB(samples=2, steps=3, seed=4)(classifier, image))
    alone = M2IB(samples=2, steps=3, seed=4, batch_size=1)(classifier, image[1:])
    torch.testing.assert_close(together[1:], alone, rtol=1e-2, atol=1e-2)
    assert not torch.allclose(together, M2IB(samples=2, steps=3, seed=5)(classifier, image))
    assert not torch.allclose(together[:, 0], together[:, 1])


def test_context_follows_the_copies_of_its_own_image() -> None:
    classifier = PatchQuadrants(2, with_gain=True)
    image = flat_images(classifier, 1).expand(2, -1, -1, -1)
    maps = M2IB(beta=0.0)(classifier, image, gain=torch.tensor([1.0, -1.0]))
    torch.testing.assert_close(maps[:1], M2IB(beta=0.0)(PatchQuadrants(2), image[:1]))
    assert peaks_inside(-maps[1:], classifier.corners)  # there, the less is shown of the corner the higher the score


def test_everything_is_given_back_and_no_global_generator_moves() -> None:
    classifier, state = PatchQuadrants(2), torch.get_rng_state()
    image = flat_images(classifier)
    M2IB(steps=2)(classifier, image)
    assert torch.equal(state, torch.get_rng_state())

    class Failing(PatchQuadrants):
        def score_features(self, features: Tensor, gain: Tensor | None = None) -> Tensor:
            if len(features) > 4:
                raise RuntimeError("too many copies")
            return super().score_features(features, gain)

    classifier = Failing(2)
    with torch.no_grad(), pytest.raises(RuntimeError, match="too many copies"):
        M2IB()(classifier, image)
    assert classifier.training
    assert classifier.dropout.training
    assert classifier.weights.requires_grad
    assert classifier.weights.grad is None
    assert torch.equal(state, torch.get_rng_state())


def test_bad_arguments_and_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="steps=0"):
        M2IB(steps=0)
    with pytest.raises(ValueError, match="beta=-1"):
        M2IB(beta=-1.0)
    with pytest.raises(TypeError, match="reads attention"):
        M2IB()(Quadrants(2), torch.rand(1, 1, 24, 40))


def test_behind_more_blocks_than_there_are_is_behind_all_of_them() -> None:
    classifier, image = real_classifier(2)
    everything = classifier.image_encoder.num_blocks
    torch.testing.assert_close(M2IB(blocks=9)(classifier, image), M2IB(blocks=everything)(classifier, image))
