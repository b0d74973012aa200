"""Image encoders, text encoders, CLIP, classifiers and attention access."""

from monai_medclip.networks.astra import ASTRA_WINDOW_HU, AstraImageEncoder
from monai_medclip.networks.attention import QKV, AttentionAccess, attend, has_attention
from monai_medclip.networks.backbone_classifier import BackboneClassifier
from monai_medclip.networks.blip import BLIPMatcher
from monai_medclip.networks.checkpoints import load_state_dict, load_weights
from monai_medclip.networks.classifier import Classifier, ProbeClassifier
from monai_medclip.networks.clip import CLIP
from monai_medclip.networks.export import export_classifier
from monai_medclip.networks.features import PrecomputedFeatures
from monai_medclip.networks.freezing import freeze_parts, parameter_groups
from monai_medclip.networks.image_classifier import ARCHITECTURES, ImageClassifier, named_encoder
from monai_medclip.networks.image_encoder import ImageEncoder, network_input
from monai_medclip.networks.inflation import inflate_state_dict, inflated
from monai_medclip.networks.matching_classifier import MatchingClassifier
from monai_medclip.networks.monai_encoder import MonaiImageEncoder
from monai_medclip.networks.open_clip_encoder import OpenClipImageEncoder, load_open_clip
from monai_medclip.networks.packaged import packaged_weights
from monai_medclip.networks.probe_heads import PROBE_HEADS, MLPHead, load_probe, probe_head, save_probe
from monai_medclip.networks.slice_encoder import SliceClassifier, SliceEncoder, SlicePooling
from monai_medclip.networks.small_cnn import SmallCNN
from monai_medclip.networks.small_vit import SmallViT
from monai_medclip.networks.text_attention import TextAttentionAccess, has_text_attention
from monai_medclip.networks.text_encoder import TransformersTextEncoder
from monai_medclip.networks.text_open_clip import OpenClipTextEncoder
from monai_medclip.networks.timm_encoder import TimmImageEncoder
from monai_medclip.networks.transformers_clip import (
    TransformersClipImageEncoder,
    TransformersClipTextEncoder,
    load_transformers_clip,
)
from monai_medclip.networks.transformers_encoder import TransformersImageEncoder
from monai_medclip.networks.zero_shot import PROMPT_RULES, ZeroShotClassifier, as_findings, prompt_directions

__all__ = [
    "ARCHITECTURES",
    "ASTRA_WINDOW_HU",
    "CLIP",
    "PROBE_HEADS",
    "PROMPT_RULES",
    "QKV",
    "AstraImageEncoder",
    "AttentionAccess",
    "BLIPMatcher",
    "BackboneClassifier",
    "Classifier",
    "ImageClassifier",
    "ImageEncoder",
    "MLPHead",
    "MatchingClassifier",
    "MonaiImageEncoder",
    "OpenClipImageEncoder",
    "OpenClipTextEncoder",
    "PrecomputedFeatures",
    "ProbeClassifier",
    "SliceClassifier",
    "SliceEncoder",
    "SlicePooling",
    "SmallCNN",
    "SmallViT",
    "TextAttentionAccess",
    "TimmImageEncoder",
    "TransformersClipImageEncoder",
    "TransformersClipTextEncoder",
    "TransformersImageEncoder",
    "TransformersTextEncoder",
    "ZeroShotClassifier",
    "as_findings",
    "attend",
    "export_classifier",
    "freeze_parts",
    "has_attention",
    "has_text_attention",
    "inflate_state_dict",
    "inflated",
    "load_open_clip",
    "load_probe",
    "load_state_dict",
    "load_transformers_clip",
    "load_weights",
    "named_encoder",
    "network_input",
    "packaged_weights",
    "parameter_groups",
    "probe_head",
    "prompt_directions",
    "save_probe",
]
