"""Image encoders, text encoders, CLIP, classifiers and attention access."""

from monai_medclip.networks.attention import QKV, AttentionAccess, attend, has_attention
from monai_medclip.networks.checkpoints import load_state_dict, load_weights
from monai_medclip.networks.clip import CLIP
from monai_medclip.networks.image_encoder import ImageEncoder, network_input
from monai_medclip.networks.small_vit import SmallViT
from monai_medclip.networks.text_encoder import TransformersTextEncoder
from monai_medclip.networks.timm_encoder import TimmImageEncoder
from monai_medclip.networks.zero_shot import PROMPT_RULES, ZeroShotClassifier, prompt_directions

__all__ = [
    "CLIP",
    "PROMPT_RULES",
    "QKV",
    "AttentionAccess",
    "ImageEncoder",
    "SmallViT",
    "TimmImageEncoder",
    "TransformersTextEncoder",
    "ZeroShotClassifier",
    "attend",
    "has_attention",
    "load_state_dict",
    "load_weights",
    "network_input",
    "prompt_directions",
]
