"""Networks for images (and sound) that transformers builds from a configuration, nothing loaded.

Convolutional networks have their published sizes, transformers few layers and small widths.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .entry import Entry, configured, images

__all__ = ["ENTRIES"]


def _entry(
    kind: str, config: str, inputs: Callable[[], Tensor], argument: str = "pixel_values", **of: Any
) -> Entry:
    return configured(kind, config, lambda: {argument: inputs()}, **of)


_SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 160,
    "image_size": 64,
    "patch_size": 16,
}
_STAGES = {
    "embed_dim": 24,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
    "image_size": 64,
    "patch_size": 4,
}


def _pictures() -> Tensor:
    return images(64)


ENTRIES: dict[str, Entry] = {
    "resnet-18": _entry(
        "ResNetForImageClassification",
        "ResNetConfig",
        images,
        layer_type="basic",
        depths=[2, 2, 2, 2],
        hidden_sizes=[64, 128, 256, 512],
        num_labels=1000,
    ),
    "resnet-50": _entry("ResNetForImageClassification", "ResNetConfig", images, num_labels=1000),
    "regnet-y": _entry(
        "RegNetForImageClassification",
        "RegNetConfig",
        images,
        depths=[1, 3, 8, 2],
        hidden_sizes=[48, 104, 208, 440],
        groups_width=8,
        num_labels=1000,
    ),
    "regnet-x": _entry(
        "RegNetForImageClassification",
        "RegNetConfig",
        images,
        layer_type="x",
        depths=[1, 2, 7, 2],
        hidden_sizes=[64, 128, 288, 672],
        groups_width=16,
        num_labels=1000,
    ),
    "mobilenet-v1": _entry(
        "MobileNetV1ForImageClassification", "MobileNetV1Config", images, num_labels=1000
    ),
    "mobilenet-v2": _entry(
        "MobileNetV2ForImageClassification", "MobileNetV2Config", images, num_labels=1000
    ),
    "efficientnet-b0": _entry(
        "EfficientNetForImageClassification",
        "EfficientNetConfig",
        images,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        image_size=112,
        hidden_dim=1280,
        num_labels=1000,
    ),
    "convnext": _entry(
        "ConvNextForImageClassification",
        "ConvNextConfig",
        images,
        depths=[2, 2, 4, 2],
        hidden_sizes=[48, 96, 192, 384],
        layer_scale_init_value=0.5,
    ),
    "convnext-v2": _entry(
        "ConvNextV2ForImageClassification",
        "ConvNextV2Config",
        images,
        depths=[2, 2, 4, 2],
        hidden_sizes=[40, 80, 160, 320],
    ),
    "poolformer": _entry(
        "PoolFormerForImageClassification",
        "PoolFormerConfig",
        images,
        depths=[2, 2, 2, 2],
        hidden_sizes=[32, 64, 128, 192],
    ),
    "hgnet-v2": _entry("HGNetV2ForImageClassification", "HGNetV2Config", images),
    "vit": _entry("ViTForImageClassification", "ViTConfig", _pictures, **_SMALL),
    "deit": _entry("DeiTForImageClassification", "DeiTConfig", _pictures, **_SMALL),
    "beit": _entry(
        "BeitForImageClassification",
        "BeitConfig",
        _pictures,
        use_relative_position_bias=True,
        layer_scale_init_value=0.5,
        **_SMALL,
    ),
    "dinov2": _entry(
        "Dinov2ForImageClassification",
        "Dinov2Config",
        _pictures,
        use_swiglu_ffn=True,
        **{k: v for k, v in _SMALL.items() if k != "intermediate_size"},
    ),
    "clip-vision": _entry("CLIPVisionModel", "CLIPVisionConfig", _pictures, **_SMALL),
    "siglip-vision": _entry("SiglipVisionModel", "SiglipVisionConfig", _pictures, **_SMALL),
    "swin": _entry("SwinForImageClassification", "SwinConfig", _pictures, **_STAGES),
    "swin-v2": _entry("Swinv2ForImageClassification", "Swinv2Config", _pictures, **_STAGES),
    "segformer": _entry(
        "SegformerForSemanticSegmentation",
        "SegformerConfig",
        _pictures,
        depths=[1, 1, 1, 1],
        hidden_sizes=[16, 32, 64, 96],
        decoder_hidden_size=48,
        num_attention_heads=[1, 2, 4, 4],
    ),
    "mobilevit": _entry(
        "MobileViTForImageClassification", "MobileViTConfig", lambda: images(128), image_size=128
    ),
    "cvt": _entry(
        "CvtForImageClassification",
        "CvtConfig",
        _pictures,
        embed_dim=[16, 32, 64],
        num_heads=[1, 2, 4],
        depth=[1, 2, 3],
        patch_sizes=[7, 3, 3],
    ),
    "levit": _entry(
        "LevitForImageClassification",
        "LevitConfig",
        _pictures,
        image_size=64,
        hidden_sizes=[32, 64, 96],
        num_attention_heads=[2, 4, 4],
        depths=[1, 1, 1],
    ),
    "pvt-v2": _entry(
        "PvtV2ForImageClassification",
        "PvtV2Config",
        _pictures,
        image_size=64,
        depths=[1, 1, 1, 1],
        hidden_sizes=[16, 32, 64, 96],
        num_attention_heads=[1, 2, 4, 4],
    ),
    "whisper-encoder": _entry(
        "WhisperForAudioClassification",
        "WhisperConfig",
        lambda: torch.randn(2, 20, 64),
        "input_features",
        num_mel_bins=20,
        d_model=64,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=160,
        max_source_positions=32,
        num_labels=6,
    ),
    "wav2vec2": _entry(
        "Wav2Vec2ForSequenceClassification",
        "Wav2Vec2Config",
        lambda: torch.randn(2, 2000),
        "input_values",
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=160,
        conv_dim=[32, 32, 32],
        conv_kernel=[10, 3, 3],
        conv_stride=[5, 2, 2],
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        apply_spec_augment=False,
    ),
}
