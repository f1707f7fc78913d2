"""A temperature folded into the last layer: what a pipeline then says, and when it is refused."""

import math

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from tiny import CLASSES, WORDS, tiny_batch, tiny_bert, tiny_tokenizer
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    BartConfig,
    BartForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    pipeline,
)

from hf_challenger import ChallengerError, ChallengerWarning
from hf_challenger.calibration import apply_temperature, expected_accuracy, fit_temperature, temperature_for_accuracy

SMALL = {"vocab_size": 45, "hidden_size": 16, "num_attention_heads": 2, "num_labels": CLASSES}


def roberta():
    return RobertaForSequenceClassification(
        RobertaConfig(**SMALL, num_hidden_layers=1, intermediate_size=32, max_position_embeddings=40)
    )


def llama():
    return LlamaForSequenceClassification(LlamaConfig(**SMALL, num_hidden_layers=1, intermediate_size=32))


def bart():
    return BartForSequenceClassification(
        BartConfig(
            vocab_size=45,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            max_position_embeddings=32,
            num_labels=CLASSES,
        )
    )


def test_a_pipeline_on_the_saved_model_is_calibrated(tmp_path):
    model, tokenizer, texts = tiny_bert().eval(), tiny_tokenizer(), [f"{w} w3 w20" for w in WORDS[:10]]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        logits = model(**batch).logits
    temperature = fit_temperature(logits, torch.arange(10) % CLASSES)
    assert temperature > 1.5  # labels unrelated to the texts: all certainty is too much
    apply_temperature(model, temperature)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    answers = pipeline("text-classification", model=str(tmp_path), device="cpu", top_k=None)(texts)
    expected = (logits.double() / temperature).softmax(1)
    for answer, row in zip(answers, expected, strict=True):
        by_label = {score["label"]: score["score"] for score in answer}
        assert [by_label[f"LABEL_{k}"] for k in range(CLASSES)] == pytest.approx(row.tolist(), abs=1e-6)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert again.config.calibration_temperature == pytest.approx(temperature)


@pytest.mark.parametrize("build", [tiny_bert, roberta, llama, bart])
@pytest.mark.parametrize("temperature", [0.4, 3.0])
def test_logits_come_out_divided_and_only_the_last_layer_changes(build, temperature):
    torch.manual_seed(0)
    model = build()
    training = [m.training for m in model.modules()]
    batch = {"input_ids": torch.tensor([[7, 8, 9, 2]])}
    before = {name: p.clone() for name, p in model.named_parameters()}
    model.eval()
    logits = model(**batch).logits
    for module, flag in zip(model.modules(), training, strict=True):
        module.training = flag
    apply_temperature(model, temperature)
    assert [m.training for m in model.modules()] == training
    assert all(p.requires_grad for p in model.parameters())
    torch.testing.assert_close(model.eval()(**batch).logits, logits / temperature, rtol=1e-5, atol=1e-6)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert len(changed) <= 2
    assert all(any(head in name for head in ("classifier", "score", "classification_head.out_proj")) for name in changed)


def test_temperatures_multiply():
    model, batch = tiny_bert().eval(), tiny_batch(4)
    del batch["labels"]
    logits = model(**batch).logits
    apply_temperature(model, 2.0)
    apply_temperature(model, 1.5)
    torch.testing.assert_close(model(**batch).logits, logits / 3)
    assert model.config.calibration_temperature == 3.0
    apply_temperature(model, 1 / 3)
    assert not hasattr(model.config, "calibration_temperature")


def test_bf16_weights_are_scaled_too():
    model = tiny_bert().eval().bfloat16()
    batch = {"input_ids": torch.tensor([[2, 7, 8, 3]])}
    logits = model(**batch).logits.float()
    with pytest.warns(ChallengerWarning, match="divided by 2 and not by 1.7.*the remaining 0.85"):
        assert apply_temperature(model, 1.7) == 2
    assert torch.equal(model(**batch).logits.float(), logits / 2)


class AfterThought(nn.Module):
    """Something nonlinear after the last linear layer."""

    main_input_name = "x"

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        return torch.tanh(self.last(x)) * 5


class NoLinear(nn.Module):
    main_input_name = "x"

    def forward(self, x):
        return x * 2


@pytest.mark.parametrize(
    ("build", "inputs", "words"),
    [
        (AfterThought, {"x": torch.ones(2, 4)}, "something comes after it"),
        (AfterThought, None, "pass a batch as inputs"),
        (NoLinear, {"x": torch.ones(2, 4)}, "no torch.nn.Linear with 4 outputs"),
        (lambda: tiny_bert(problem_type="regression", num_labels=1), None, "regression"),
        (
            lambda: get_peft_model(tiny_bert(), LoraConfig(target_modules=["query", "classifier"], init_lora_weights=False)),
            None,
            "merge_and_unload",
        ),
    ],
)
def test_models_whose_logits_would_not_follow_are_refused_and_stay_as_they_were(build, inputs, words):
    torch.manual_seed(0)
    model = build()
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(ChallengerError, match=words):
        apply_temperature(model, 2.0, inputs)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf"), "2", True, None])
def test_bad_temperatures_are_refused(temperature):
    with pytest.raises(ChallengerError, match="fit_temperature"):
        apply_temperature(tiny_bert(), temperature)


@pytest.mark.parametrize("accuracy", [0.4, 0.7, 0.95])
def test_the_mean_confidence_equals_the_accuracy(accuracy):
    logits = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * 4
    temperature = temperature_for_accuracy(logits.numpy(), accuracy)
    assert float((logits.double() / temperature).softmax(1).amax(1).mean()) == pytest.approx(accuracy, abs=1e-6)
    assert temperature == temperature_for_accuracy(logits, accuracy)


@pytest.mark.parametrize(
    ("logits", "accuracy", "words"),
    [
        (torch.randn(9, 3), 1 / 3, "between chance and 1"),
        (torch.randn(9, 3), 1.0, "between chance and 1"),
        (torch.randn(9, 3), float("nan"), "between chance and 1"),
        (torch.randn(9), 0.5, "between chance and 1"),
        (torch.zeros(9, 3), 0.5, "No temperature between"),
        (torch.randn(9, 3) * 1e6, 0.5, "No temperature between"),
        (torch.full((9, 3), float("nan")), 0.5, "NaN or infinity"),
    ],
)
def test_an_accuracy_that_no_temperature_gives_is_refused(logits, accuracy, words):
    with pytest.raises(ChallengerError, match=words):
        temperature_for_accuracy(logits, accuracy)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1.37, 0.3, 2.9])
def test_in_half_precision_no_class_changes_also_in_the_saved_model(dtype, temperature, tmp_path):
    torch.manual_seed(0)
    model = tiny_bert(num_labels=77).to(dtype).eval()
    ids = torch.randint(5, 45, (1000, 8))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        before = model(**batch).logits
        with pytest.warns(ChallengerWarning, match="could change predicted classes. Divide the logits by the remaining"):
            applied = apply_temperature(model, temperature, batch)
        assert math.log2(applied) == round(math.log2(temperature))
        assert getattr(model.config, "calibration_temperature", 1.0) == applied
        model.save_pretrained(tmp_path)
        saved = type(model).from_pretrained(tmp_path, dtype=dtype).eval()
        for calibrated in (model, saved):
            after = calibrated(**batch).logits
            assert torch.equal(after.argmax(1), before.argmax(1))
            torch.testing.assert_close(
                after * applied, before, rtol=0, atol=2e-5
            )  # a last bit of fp16, which other processors round otherwise


def test_a_layer_that_peft_would_not_save_is_left_alone():
    batch = {k: v for k, v in tiny_batch().items() if k != "labels"}
    model = get_peft_model(tiny_bert(), LoraConfig(target_modules=["query"], r=2)).eval()
    before = model(**batch).logits
    with pytest.raises(ChallengerError, match=r"PEFT does not save the last layer.*modules_to_save"):
        apply_temperature(model, 2.0, batch)
    assert torch.equal(model(**batch).logits, before)
    kept = get_peft_model(tiny_bert(), LoraConfig(task_type="SEQ_CLS", target_modules=["query"], r=2)).eval()
    before = kept(**batch).logits
    assert apply_temperature(kept, 2.0, batch) == 2.0
    torch.testing.assert_close(kept(**batch).logits * 2, before)


def test_the_accuracy_of_a_prompt_tuned_model_is_estimated_from_its_texts_tokens():
    model = get_peft_model(tiny_bert(), PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3))
    assert 0 < expected_accuracy(model, [tiny_batch(16)]) <= 1
