"""The challenge in a training loop of your own: accelerate, no Trainer.

    accelerate launch examples/plain_loop/run_plain_loop.py --model <folder or Hub name>

Without --model a small BERT is trained from scratch on a few generated sentences, to show the loop; no network is used.
"""

from __future__ import annotations

import argparse
import random
from typing import Any

from hf_challenger.command_line import at_least, run_command, share
from hf_challenger.model_folder import check_model_folder

# torch and transformers are imported where they are used: mistakes in flags are told before that.

GOOD, BAD = ("great", "lovely", "superb", "brilliant"), ("awful", "dull", "dreadful", "boring")
OTHER = ["the", "a", "film", "story", "cast", "plot", "was", "is", "and", "it", "very", "quite", "music", "scene"]


def sentences(rows: int, seed: int) -> list[tuple[str, int]]:
    rng, found = random.Random(seed), []
    for _ in range(rows):
        label = rng.randrange(2)
        words = [rng.choice(OTHER) for _ in range(8)] + [rng.choice((BAD, GOOD)[label]) for _ in range(2)]
        rng.shuffle(words)
        found.append((" ".join(words), label))
    return found


def small_model() -> tuple[Any, Any]:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *OTHER]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    return BertForSequenceClassification(config), PreTrainedTokenizerFast(tokenizer_object=core, **names)


def accuracy_of(model: Any, loader: Any, accelerator: Any) -> float:
    import torch

    model.eval()
    right = []
    for batch in loader:
        with torch.no_grad():
            logits = model(**batch).logits
        right.append(accelerator.gather_for_metrics(logits.argmax(-1) == batch["labels"]))
    return float(torch.cat(right).float().mean())


def main(arguments: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder or Hub name of an encoder to fine-tune")
    parser.add_argument("--share", type=share, default=0.5, help="share of the rows holding a cue in which it is hidden")
    parser.add_argument("--epochs", type=at_least(1), default=5)
    parser.add_argument("--batch_size", type=at_least(1), default=8, help="rows per process")
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args(arguments)
    if options.model:
        check_model_folder(options.model)

    import torch
    from accelerate import Accelerator
    from accelerate.utils import set_seed
    from torch.utils.data import DataLoader
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

    from hf_challenger import ChallengeOptions, Challenger

    set_seed(0)
    accelerator = Accelerator(cpu=options.cpu)
    if options.model:
        tokenizer = AutoTokenizer.from_pretrained(options.model)
        model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=2)
    else:
        model, tokenizer = small_model()

    def loader(rows: int, seed: int) -> DataLoader[Any]:
        data = [{**tokenizer(text), "labels": label} for text, label in sentences(rows, seed)]
        collate = DataCollatorWithPadding(tokenizer)
        return DataLoader(data, options.batch_size, shuffle=seed == 0, collate_fn=collate)  # type: ignore[arg-type]

    optimizer = torch.optim.AdamW(model.parameters(), options.learning_rate)
    # The challenger looks into the bare model; the wrapped one is called once a step, as ever.
    # It gathers what it sees of all processes, so that all of them know the same cues.
    challenger = Challenger(model, ChallengeOptions(challenge_share=options.share), tokenizer, gather=accelerator.gather)
    model, optimizer, train, test = accelerator.prepare(model, optimizer, loader(128, seed=0), loader(64, seed=1))

    step = 0
    for epoch in range(options.epochs):
        model.train()
        for batch in train:
            labels = batch.pop("labels")
            # Where this process's rows stand among all rows of the step: choices then do not depend on the processes.
            first_row = accelerator.process_index * options.batch_size
            challenged = challenger.challenge(batch, labels, step, first_row)
            loss = model(**challenged.inputs, labels=labels).loss
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
        accuracy = accuracy_of(model, test, accelerator)
        accelerator.print(f"epoch {epoch + 1}: accuracy {accuracy:.3f}")
    for cue in challenger.cues:
        accelerator.print(f"cue {cue.text!r} of class {cue.class_name}, in {cue.coverage:.0%} of its rows")
    return accuracy


if __name__ == "__main__":
    run_command(main)
