"""The tokenizer and the text encoder of pocket-sd, in CLIP's formats."""

import json
from collections.abc import Iterable

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import ByteLevel, Sequence, WhitespaceSplit
from tokenizers.trainers import BpeTrainer
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"

#: As in Stable Diffusion: every prompt is padded to this many tokens.
CONTEXT = 77

#: Few enough merges that the rarer words of the scenes fall into two or more tokens, as rare words do in CLIP.
MERGES = 125


def build_tokenizer(captions: Iterable[str], merges: int = MERGES) -> CLIPTokenizer:
    """Byte-pair encoding in CLIP's form, learned from captions.

    The vocabulary is CLIP's: all bytes, all bytes as the end of a word, one entry per merge, and the two markers. So
    any text can be written in it.
    """
    letters = sorted(ByteLevel.alphabet())
    alphabet = letters + [letter + WORD_END for letter in letters]
    bpe = Tokenizer(BPE(end_of_word_suffix=WORD_END))
    bpe.normalizer = Lowercase()
    bpe.pre_tokenizer = Sequence([WhitespaceSplit(), ByteLevel(add_prefix_space=False)])
    # The size asks for more than is needed: merges are learned in order, and the first ones are kept.
    trainer = BpeTrainer(vocab_size=4 * len(alphabet), end_of_word_suffix=WORD_END, show_progress=False)
    bpe.train_from_iterator(captions, trainer)
    learned = _merges(bpe)[:merges]
    words = list(dict.fromkeys([*alphabet, *(a + b for a, b in learned), START, END]))
    return CLIPTokenizer(
        vocab={word: index for index, word in enumerate(words)}, merges=learned, model_max_length=CONTEXT
    )


def _merges(bpe: Tokenizer) -> list[tuple[str, str]]:
    """The learned merges, first learned first; the library gives them only as JSON."""
    return [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]


def build_text_encoder(tokenizer: CLIPTokenizer, width: int = 64, layers: int = 2, heads: int = 4) -> CLIPTextModel:
    """A small CLIP text model with random weights; it is trained together with the UNet.

    Token embeddings start with variance 1, not with CLIP's 0.02 squared: in a short training tokens would otherwise
    stay so alike that attention cannot tell them apart.
    """
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=CONTEXT,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    encoder = CLIPTextModel(config)
    nn.init.normal_(encoder.get_input_embeddings().weight)
    return encoder
