"""pocket-blip: a small BLIP that writes captions of scenes, and its training."""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.trainers import WordPieceTrainer
from torch import Tensor, nn
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipProcessor,
    BlipTextConfig,
    BlipVisionConfig,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from ...models.devices import half_precision
from ..catalogue import CLASSES
from .loop import Plan, muon_and_adamw, train
from .pictures import Pictures

SIDE, PATCH, WIDTH, HEADS = 160, 16, 160, 5
VISION_LAYERS, TEXT_LAYERS = 6, 3
LONGEST = 48  # tokens of a caption

_SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_START = "[DEC]"  # what BLIP's decoder starts with


def build_processor(captions: Iterable[str]) -> BlipProcessor:
    """BLIP's processor: pictures to SIDE pixels, and a WordPiece tokenizer learned from captions."""
    pieces = Tokenizer(WordPiece(unk_token=_SPECIAL["unk"]))
    pieces.normalizer, pieces.pre_tokenizer = Lowercase(), BertPreTokenizer()
    trainer = WordPieceTrainer(vocab_size=600, special_tokens=[*_SPECIAL.values(), _START], show_progress=False)
    pieces.train_from_iterator(captions, trainer)
    tokenizer = BertTokenizer(vocab=pieces.get_vocab(), bos_token=_START, model_max_length=LONGEST)
    pictures = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return BlipProcessor(pictures, tokenizer)


def build(tokenizer: BertTokenizer) -> BlipForConditionalGeneration:
    """BLIP's architecture with few layers and random weights."""
    common = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": HEADS}
    vision = BlipVisionConfig(**common, num_hidden_layers=VISION_LAYERS, image_size=SIDE, patch_size=PATCH)
    text = BlipTextConfig(
        **common,
        vocab_size=len(tokenizer),
        encoder_hidden_size=WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=TEXT_LAYERS,
        max_position_embeddings=LONGEST,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.sep_token_id,
        sep_token_id=tokenizer.sep_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BlipForConditionalGeneration(
        BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=WIDTH)
    )


class _CaptionerWithPatchHead(nn.Module):
    """The captioner, and a head for the class of each patch: the vision model learns faster with it; dropped later."""

    def __init__(self, blip: BlipForConditionalGeneration) -> None:
        super().__init__()
        self.blip, self.classify = blip, nn.Linear(WIDTH, len(CLASSES))

    def forward(
        self,
        pixels: Float[Tensor, "n 3 side side"],
        tokens: Int[Tensor, "n length"],
        mask: Int[Tensor, "n length"],
        classes: Int[Tensor, "n patches"],
    ) -> Tensor:
        """Loss of the caption, given the picture, plus that of the patches' classes."""
        features = self.blip.vision_model(pixels).last_hidden_state  # [n, 1 + patches, width]
        targets = tokens.masked_fill(mask == 0, -100)
        caption_loss = self.blip.text_decoder(
            input_ids=tokens, attention_mask=mask, encoder_hidden_states=features, labels=targets, reduction="mean"
        ).loss
        return caption_loss + F.cross_entropy(self.classify(features[:, 1:]).flatten(0, 1), classes.flatten())


def patch_classes(labels: np.ndarray, patch: int = PATCH) -> Int[Tensor, "n patches"]:
    """The class in the middle of each patch: uint8 [n, side, side] -> int64 [n, patches]."""
    middle = labels[:, patch // 2 :: patch, patch // 2 :: patch]
    return torch.from_numpy(middle.reshape(len(labels), -1).astype(np.int64))


def train_blip(
    pictures: Pictures,
    processor: BlipProcessor,
    folder: Path,
    steps: int,
    batch: int = 32,
    device: str = "cpu",
    deadline: float = math.inf,
) -> BlipForConditionalGeneration:
    """Train the captioner, or go on where it was stopped.

    Args:
        pictures: training scenes of SIDE pixels.
        processor: gives tokens and normalisation.
        folder: for checkpoint and log.
        steps: optimiser steps.
        batch: scenes per step.
        device: where to train.
        deadline: see `Plan`.

    Raises:
        OutOfTime: see `train`.
    """
    torch.manual_seed(0)
    model = _CaptionerWithPatchHead(build(processor.tokenizer)).to(device)
    mean, std = (np.array(getattr(processor.image_processor, name)) for name in ("image_mean", "image_std"))

    def loss(model: _CaptionerWithPatchHead, rng: np.random.Generator, step: int) -> Tensor:
        images, labels, captions = pictures.sample(rng, batch)
        if rng.random() < 0.5:  # captions do not mention left and right
            images, labels = images[:, :, ::-1], labels[:, :, ::-1]
        pixels = torch.from_numpy(((images / 255 - mean) / std).astype(np.float32)).permute(0, 3, 1, 2)
        encoded = processor.tokenizer(captions, padding=True, truncation=True, return_tensors="pt")
        tokens = encoded.input_ids.clone()
        tokens[:, 0] = processor.tokenizer.bos_token_id
        inputs = (pixels, tokens, encoded.attention_mask, patch_classes(labels))
        with half_precision(device):
            return model(*(tensor.to(device) for tensor in inputs)).float()

    plan = Plan(steps, ema=0.998, deadline=deadline)
    return train(model, muon_and_adamw(model, 0.01, 1e-3), loss, plan, folder).blip
