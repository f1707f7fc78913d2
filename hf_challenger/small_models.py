"""Small classifiers for series and images, each a ``PreTrainedModel``. Not imported by ``import hf_challenger``."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    PatchTSTConfig,
    PatchTSTForClassification,
    PreTrainedConfig,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from .errors import ChallengerError

SERIES_MODELS = ("fcn", "fcn-small", "resnet1d", "patchtst")
IMAGE_MODELS = ("cnn", "resnet", "convnext", "vit")


class SmallConvConfig(PreTrainedConfig):
    """Config of the convolutional networks below.

    Args:
        num_channels: of the input.
        widths: channels of each block.
    """

    model_type = "small_conv"

    def __init__(self, num_channels: int = 1, widths: tuple[int, ...] = (128, 256, 128), **kwargs: Any) -> None:
        self.num_channels = num_channels
        self.widths = list(widths)
        super().__init__(**kwargs)


class _Classifier(PreTrainedModel):
    config_class: type[PreTrainedConfig] = SmallConvConfig

    def _init_weights(self, module: nn.Module) -> None:
        """torch's own initialisation, which each layer has had already."""

    @staticmethod
    def _output(logits: Tensor, labels: Tensor | None) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(loss=None if labels is None else F.cross_entropy(logits, labels), logits=logits)


class _SameConv1d(nn.Conv1d):
    """``padding="same"``, whose warning at even kernels tells that it pads as this does: one step more at the end."""

    def forward(self, x: Tensor) -> Tensor:
        total = self.kernel_size[0] - 1
        return super().forward(F.pad(x, (total // 2, total - total // 2)))


def _conv(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    return [_SameConv1d(inputs, outputs, kernel), nn.BatchNorm1d(outputs)]


class FCNForTimeSeriesClassification(_Classifier):
    """Fully convolutional network: three blocks (kernels 8, 5, 3), then the mean over time.

    Z. Wang, W. Yan, T. Oates: Time series classification from scratch with deep neural networks: a strong baseline. IJCNN
    2017, arXiv 1611.06455, section II-B. Padded steps are left out of the mean.
    """

    main_input_name = "past_values"

    def __init__(self, config: SmallConvConfig) -> None:
        super().__init__(config)
        layers, width = [], config.num_channels
        for out, kernel in zip(config.widths, (8, 5, 3), strict=True):
            layers += [*_conv(width, out, kernel), nn.ReLU()]
            width = out
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, int(config.num_labels or 0))
        self.post_init()

    def forward(
        self, past_values: Tensor, past_observed_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> SequenceClassifierOutput:
        hidden = self.body(past_values.transpose(1, 2))
        return self._output(self.head(_mean_over_time(hidden, past_observed_mask)), labels)


class ResNet1dForTimeSeriesClassification(_Classifier):
    """Three residual blocks of three convolutions (kernels 8, 5, 3), then the mean over time; Wang et al., section II-C."""

    main_input_name = "past_values"

    def __init__(self, config: SmallConvConfig) -> None:
        super().__init__(config)
        self.blocks, self.shortcuts = nn.ModuleList(), nn.ModuleList()
        width = config.num_channels
        for out in config.widths:
            layers = [*_conv(width, out, 8), nn.ReLU(), *_conv(out, out, 5), nn.ReLU(), *_conv(out, out, 3)]
            self.blocks.append(nn.Sequential(*layers))
            self.shortcuts.append(nn.BatchNorm1d(out) if width == out else nn.Sequential(*_conv(width, out, 1)))
            width = out
        self.head = nn.Linear(width, int(config.num_labels or 0))
        self.post_init()

    def forward(
        self, past_values: Tensor, past_observed_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> SequenceClassifierOutput:
        hidden = past_values.transpose(1, 2)
        for block, shortcut in zip(self.blocks, self.shortcuts, strict=True):
            hidden = F.relu(block(hidden) + shortcut(hidden))
        return self._output(self.head(_mean_over_time(hidden, past_observed_mask)), labels)


def _mean_over_time(hidden: Tensor, observed: Tensor | None) -> Tensor:
    """``(rows, channels, time)`` → ``(rows, channels)``; a step counts if any of its channels was observed."""
    if observed is None:
        return hidden.mean(-1)
    steps = observed.flatten(2).any(-1) if observed.dim() == 3 else observed.bool()
    steps = steps.unsqueeze(1).to(hidden.dtype)
    return (hidden * steps).sum(-1) / steps.sum(-1).clamp(min=1)


class SmallCNNConfig(PreTrainedConfig):
    """Config of :class:`SmallCNNForImageClassification`.

    Args:
        num_channels, image_size: of the input; image_size is (height, width).
        widths: channels of the two convolutions, width of the hidden layer.
    """

    model_type = "small_cnn"

    def __init__(
        self,
        num_channels: int = 1,
        image_size: tuple[int, int] = (28, 28),
        widths: tuple[int, int, int] = (16, 32, 128),
        **kwargs: Any,
    ) -> None:
        self.num_channels, self.image_size, self.widths = num_channels, list(image_size), list(widths)
        super().__init__(**kwargs)


class SmallCNNForImageClassification(_Classifier):
    """Two 3×3 convolutions, each halved by max-pooling, and two linear layers: LeNet's shape.

    On few images it starts better than BatchNorm and a mean over the image: .88 against .80 on ten MNIST digits a class.
    """

    config_class = SmallCNNConfig
    main_input_name = "pixel_values"

    def __init__(self, config: SmallCNNConfig) -> None:
        super().__init__(config)
        first, second, hidden = config.widths
        height, width = (-(-side // 4) for side in config.image_size)
        self.body = nn.Sequential(
            nn.Conv2d(config.num_channels, first, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(first, second, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Flatten(),
            nn.Linear(second * height * width, hidden),
            nn.ReLU(),
        )
        self.head = nn.Linear(hidden, int(config.num_labels or 0))
        self.post_init()

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> SequenceClassifierOutput:
        return self._output(self.head(self.body(pixel_values)), labels)


class SmallStemResNetForImageClassification(ResNetForImageClassification):
    """transformers' ResNet without the two halvings of its stem, which leave nothing of an image of 8 or 32 pixels.

    The name ends as transformers' own do, since that is how transformers finds the loss.
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__(config)
        stem = self.resnet.embedder
        stem.embedder.convolution.stride = (1, 1)
        stem.pooler.stride = 1


def series_model(name: str, length: int, channels: int, **labels: Any) -> PreTrainedModel:
    """An untrained classifier of ``(rows, length, channels)``; ``labels``: num_labels, id2label, label2id."""
    if name == "fcn":
        return FCNForTimeSeriesClassification(SmallConvConfig(num_channels=channels, widths=(128, 256, 128), **labels))
    if name == "fcn-small":
        return FCNForTimeSeriesClassification(SmallConvConfig(num_channels=channels, widths=(32, 64, 32), **labels))
    if name == "resnet1d":
        return ResNet1dForTimeSeriesClassification(SmallConvConfig(num_channels=channels, widths=(64, 128, 128), **labels))
    if name == "patchtst":
        patch = max(2, length // 12)
        return PatchTSTForClassification(
            PatchTSTConfig(
                num_input_channels=channels,
                context_length=length,
                num_targets=labels.pop("num_labels"),
                patch_length=patch,
                patch_stride=patch,
                d_model=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                ffn_dim=128,
                use_cls_token=True,
                **labels,
            )
        )
    raise ChallengerError(f"There is no model {name!r} for series. Choose one of {', '.join(SERIES_MODELS)}.")


def image_model(name: str, height: int, width: int, channels: int, **labels: Any) -> PreTrainedModel:
    """An untrained classifier of ``(rows, channels, height, width)``."""
    small: dict[str, Any] = {"num_channels": channels, **labels}
    if name == "cnn":
        return SmallCNNForImageClassification(SmallCNNConfig(image_size=(height, width), **small))
    if name == "resnet":
        sizes: dict[str, Any] = {
            "embedding_size": 16,
            "hidden_sizes": [16, 32, 64],
            "depths": [1, 1, 1],
            "layer_type": "basic",
        }
        kind = ResNetForImageClassification if min(height, width) >= 64 else SmallStemResNetForImageClassification
        return kind(ResNetConfig(**sizes, **small))
    if name == "convnext":
        patch = 4 if min(height, width) >= 64 else 2 if min(height, width) >= 16 else 1
        return ConvNextForImageClassification(
            ConvNextConfig(
                patch_size=patch, num_stages=3, hidden_sizes=[32, 64, 128], depths=[1, 1, 1], image_size=height, **small
            )
        )
    if name == "vit":
        return ViTForImageClassification(
            ViTConfig(
                image_size=(height, width),
                patch_size=next(n for n in (max(2, min(height, width) // 8), 4, 2, 1) if height % n == width % n == 0),
                hidden_size=64,
                num_hidden_layers=4,
                num_attention_heads=4,
                intermediate_size=128,
                **small,
            )
        )
    raise ChallengerError(f"There is no model {name!r} for images. Choose one of {', '.join(IMAGE_MODELS)}.")
