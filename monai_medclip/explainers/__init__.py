"""Where in the image and in which words the answer came from."""

from monai_medclip.explainers.attention_grad_cam import AttentionGradCAM
from monai_medclip.explainers.attention_path import AttentionExplainer, remembering_tokens
from monai_medclip.explainers.base import Explainer, Explanation, UnfaithfulError
from monai_medclip.explainers.baselines import CentreBlob, RandomMap
from monai_medclip.explainers.chefer import Chefer
from monai_medclip.explainers.conservative_propagation import ConservativePropagation
from monai_medclip.explainers.entropy import local_entropy
from monai_medclip.explainers.feature_contributions import Contributions, FeatureContributions
from monai_medclip.explainers.gated_propagation import GatedPropagation
from monai_medclip.explainers.grad_cam import GradCAM
from monai_medclip.explainers.grad_eclip import GradECLIP
from monai_medclip.explainers.grounding import Grounding, ReportGrounding
from monai_medclip.explainers.integrated_gradients import IntegratedGradients
from monai_medclip.explainers.m2ib import M2IB
from monai_medclip.explainers.medgrad_eclip import MedGradECLIP
from monai_medclip.explainers.occlusion import Occlusion
from monai_medclip.explainers.patch_similarity import PatchSimilarity
from monai_medclip.explainers.perturbation import PerturbationExplainer
from monai_medclip.explainers.recommended import recommended
from monai_medclip.explainers.rise import RISE
from monai_medclip.explainers.rollout import AttentionRollout
from monai_medclip.explainers.slice_wise import SliceWise
from monai_medclip.explainers.surrogates import LIME, KernelSHAP
from monai_medclip.explainers.text_chefer import TextChefer
from monai_medclip.explainers.text_grad_eclip import TextGradECLIP
from monai_medclip.explainers.text_path import TextExplainer
from monai_medclip.explainers.token_grad_cam import TokenGradCAM

__all__ = [
    "LIME",
    "M2IB",
    "RISE",
    "AttentionExplainer",
    "AttentionGradCAM",
    "AttentionRollout",
    "CentreBlob",
    "Chefer",
    "ConservativePropagation",
    "Contributions",
    "Explainer",
    "Explanation",
    "FeatureContributions",
    "GatedPropagation",
    "GradCAM",
    "GradECLIP",
    "Grounding",
    "IntegratedGradients",
    "KernelSHAP",
    "MedGradECLIP",
    "Occlusion",
    "PatchSimilarity",
    "PerturbationExplainer",
    "RandomMap",
    "ReportGrounding",
    "SliceWise",
    "TextChefer",
    "TextExplainer",
    "TextGradECLIP",
    "TokenGradCAM",
    "UnfaithfulError",
    "local_entropy",
    "recommended",
    "remembering_tokens",
]
