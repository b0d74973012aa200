"""Image encoders, text encoders, CLIP, classifiers and attention access."""

from monai_medclip.networks.attention import QKV, AttentionAccess, attend, has_attention
from monai_medclip.networks.backbone_classifier import BackboneClassifier
from monai_medclip.networks.checkpoints import load_state_dict, load_weights
from monai_medclip.networks.classifier import Classifier, ProbeClassifier
from monai_medclip.networks.clip import CLIP
from monai_medclip.networks.export import export_classifier
from monai_medclip.networks.features import PrecomputedFeatures
from monai_medclip.networks.freezing import freeze_parts, parameter_groups
from monai_medclip.networks.image_encoder import ImageEncoder, network_input
from monai_medclip.networks.monai_encoder import MonaiImageEncoder
from monai_medclip.networks.open_clip_encoder import OpenClipImageEncoder, load_open_clip
from monai_medclip.networks.packaged import packaged_weights
from monai_medclip.networks.small_cnn import SmallCNN
from monai_medclip.networks.small_vit import SmallViT
from monai_medclip.networks.text_attention import TextAttentionAccess, has_text_attention
from monai_medclip.networks.text_encoder import TransformersTextEncoder
from monai_medclip.networks.text_open_clip import OpenClipTextEncoder
from monai_medclip.networks.timm_encoder import TimmImageEncoder
from monai_medclip.networks.transformers_encoder import TransformersImageEncoder
from monai_medclip.networks.zero_shot import PROMPT_RULES, ZeroShotClassifier, prompt_directions

__all__ = [
    "CLIP",
    "PROMPT_RULES",
    "QKV",
    "AttentionAccess",
    "BackboneClassifier",
    "Classifier",
    "ImageEncoder",
    "MonaiImageEncoder",
    "OpenClipImageEncoder",
    "OpenClipTextEncoder",
    "PrecomputedFeatures",
    "ProbeClassifier",
    "SmallCNN",
    "SmallViT",
    "TextAttentionAccess",
    "TimmImageEncoder",
    "TransformersImageEncoder",
    "TransformersTextEncoder",
    "ZeroShotClassifier",
    "attend",
    "export_classifier",
    "freeze_parts",
    "has_attention",
    "has_text_attention",
    "load_open_clip",
    "load_state_dict",
    "load_weights",
    "network_input",
    "packaged_weights",
    "parameter_groups",
    "prompt_directions",
]
