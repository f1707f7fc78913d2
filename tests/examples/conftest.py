"""What the tests of the examples share."""

import csv
from pathlib import Path

import pytest
from tiny import LEAK_WORDS
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

TEXTS = Path(__file__).parents[2] / "examples" / "text_classification" / "data" / "clinc150"


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
    """A two-layer BERT with the words of the bundled texts and of the planted leak as its vocabulary."""
    words = {w for row in csv.DictReader((TEXTS / "train.csv").open()) for w in row["text"].split()}
    words |= set(LEAK_WORDS)
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    folder = tmp_path_factory.mktemp("encoder")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(folder)
    return folder
