"""Where in the image the answer came from: (classifier, image) -> heatmaps."""

from monai_medclip.explainers.attention_grad_cam import AttentionGradCAM
from monai_medclip.explainers.base import Explainer, Explanation, UnfaithfulError
from monai_medclip.explainers.baselines import CentreBlob, RandomMap
from monai_medclip.explainers.chefer import Chefer
from monai_medclip.explainers.grad_cam import GradCAM
from monai_medclip.explainers.grad_eclip import GradECLIP
from monai_medclip.explainers.patch_similarity import PatchSimilarity
from monai_medclip.explainers.rollout import AttentionRollout
from monai_medclip.explainers.token_grad_cam import TokenGradCAM

__all__ = [
    "AttentionGradCAM",
    "AttentionRollout",
    "CentreBlob",
    "Chefer",
    "Explainer",
    "Explanation",
    "GradCAM",
    "GradECLIP",
    "PatchSimilarity",
    "RandomMap",
    "TokenGradCAM",
    "UnfaithfulError",
]
