"""AttnLRP written out: relevance handed down layer by layer with the paper's formulas, against the engine.

Achtibat et al., AttnLRP, ICML 2024 (arXiv 2402.05602). Nothing here differentiates: each function takes the relevance of
an operation's output and returns that of its inputs, from the values of the forward pass. float64, one row at a time.
"""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForSequenceClassification

from hf_challenger.attribution import LRP, PositionalLRP

# --- the rules, relevance in and relevance out ------------------------------------------------------------------------


def ratio(a, b):
    """a / b, and 0 where b is 0: nothing arrives there."""
    return torch.where(b == 0, 0, a / torch.where(b == 0, 1, b))


def linear(x, weight, bias, relevance):
    """Eq. 8 with ε → 0: R_i = Σ_j x_i w_ji / z_j · R_j."""
    z = x @ weight.T + (0 if bias is None else bias)
    return x * (ratio(relevance, z) @ weight)


def add(a, b, relevance):
    """The ε-rule of a sum: R_a = a / (a + b) · R."""
    return a * ratio(relevance, a + b), b * ratio(relevance, a + b)


def matmul(a, b, relevance):
    """Prop. 3.3, uniform: R_a[j, i] = Σ_p a_ji b_ip / (2 o_jp) · R_jp, and the same for b."""
    share = ratio(relevance, 2 * (a @ b))
    return a * (share @ b.transpose(-1, -2)), b * (a.transpose(-1, -2) @ share)


def softmax(x, relevance):
    """Prop. 3.1: R_i = x_i · (R_i - s_i Σ_j R_j); x is -inf where nothing may be seen, where s and R are 0."""
    s = x.softmax(-1)
    return torch.where(s == 0, 0, x) * (relevance - s * relevance.sum(-1, keepdim=True))


def layer_norm(x, module, relevance):
    """Prop. 3.4: division by the deviation passes relevance unchanged; centring and the affine part are linear (Eq. 8)."""
    size = x.shape[-1]
    centring = torch.eye(size, dtype=x.dtype) - 1 / size
    centred = x @ centring.T
    normal = centred / (x.var(-1, unbiased=False, keepdim=True) + module.eps).sqrt()
    scaled = normal * module.weight
    relevance, _ = add(scaled, module.bias.expand_as(scaled), relevance)
    return linear(x, centring, None, relevance)


def heads(x, count):
    """(length, hidden) → (heads, length, hidden / heads)."""
    return x.reshape(len(x), count, -1).transpose(0, 1)


def joined(x):
    return x.transpose(0, 1).reshape(x.shape[1], -1)


def attention(q, k, v, visible, relevance):
    """softmax(q kᵀ / √d) v → relevance of q, k, v; all (heads, length, d)."""
    scores = q @ k.transpose(-1, -2)
    scaled = (scores / q.shape[-1] ** 0.5).masked_fill(~visible, float("-inf"))
    of_weights, of_v = matmul(scaled.softmax(-1), v, relevance)
    of_scores = softmax(scaled, of_weights)
    of_q, of_k = matmul(q, k.transpose(-1, -2), of_scores)
    return of_q, of_k.transpose(-1, -2), of_v


# --- BERT -------------------------------------------------------------------------------------------------------------


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


def of(module, x):
    return x @ module.weight.T + (0 if module.bias is None else module.bias)


def norm_of(module, x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (x.var(-1, unbiased=False, keepdim=True) + module.eps).sqrt() * module.weight + module.bias


def through(module, x, relevance):
    return linear(x, module.weight, module.bias, relevance)


@torch.no_grad()
def bert_relevance(model, ids, attended, target, positional=False):
    """Relevance of one row's word embeddings (and their positions') for one logit, (length, hidden), and the logits."""
    bert, embeddings, count = model.bert, model.bert.embeddings, model.config.num_attention_heads
    word, position = embeddings.word_embeddings.weight[ids], embeddings.position_embeddings.weight[: len(ids)]
    rest = embeddings.token_type_embeddings.weight[0] + position
    visible = attended.bool().expand(len(ids), len(ids))
    h = norm_of(embeddings.LayerNorm, word + rest)
    kept = []
    for layer in bert.encoder.layer:
        own = layer.attention.self
        q, k, v = (heads(of(module, h), count) for module in (own.query, own.key, own.value))
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~visible, float("-inf")).softmax(-1)
        mixed = joined(weights @ v)
        out = of(layer.attention.output.dense, mixed)
        middle = norm_of(layer.attention.output.LayerNorm, out + h)
        inner = of(layer.intermediate.dense, middle)
        last = of(layer.output.dense, gelu(inner))
        kept.append((layer, h, q, k, v, mixed, out, middle, inner, last))
        h = norm_of(layer.output.LayerNorm, last + middle)
    pooled = of(bert.pooler.dense, h[0])
    logits = of(model.classifier, pooled.tanh())

    relevance = torch.zeros_like(logits)
    relevance[target] = logits[target]
    relevance = through(model.classifier, pooled.tanh(), relevance)  # Eq. 9: tanh passes it on unchanged
    of_h = torch.zeros_like(h)
    of_h[0] = through(bert.pooler.dense, h[0], relevance)
    for layer, h, q, k, v, mixed, out, middle, inner, last in reversed(kept):
        own = layer.attention.self
        of_last, of_middle = add(last, middle, layer_norm(last + middle, layer.output.LayerNorm, of_h))
        of_inner = through(layer.output.dense, gelu(inner), of_last)  # Eq. 9 again
        of_middle = of_middle + through(layer.intermediate.dense, middle, of_inner)
        of_out, of_h = add(out, h, layer_norm(out + h, layer.attention.output.LayerNorm, of_middle))
        of_mixed = through(layer.attention.output.dense, mixed, of_out)
        of_qkv = attention(q, k, v, visible, heads(of_mixed, count))
        for module, part in zip((own.query, own.key, own.value), of_qkv, strict=True):
            of_h = of_h + through(module, h, joined(part))
    of_sum = layer_norm(word + rest, embeddings.LayerNorm, of_h)
    of_position = position * ratio(of_sum, word + rest)  # PA-LRP: the ε-rule gives it to the place
    return add(word, rest, of_sum)[0] + (of_position if positional else 0), logits


# --- LLaMA ------------------------------------------------------------------------------------------------------------


def rms_of(module, x):
    return x / (x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon).sqrt() * module.weight


def rotation(position, size, theta):
    """The matrix that rotary embeddings apply to one head at one position: pairs (i, i + size/2) turned by an angle."""
    half = size // 2
    matrix = torch.zeros(size, size, dtype=torch.float64)
    for i in range(half):
        angle = torch.tensor(position * theta ** (-2 * i / size), dtype=torch.float64)
        matrix[i, i] = matrix[i + half, i + half] = angle.cos()
        matrix[i, i + half], matrix[i + half, i] = -angle.sin(), angle.sin()
    return matrix


def rotated(x, theta):
    """(heads, length, d), each position turned by its own matrix."""
    turns = torch.stack([rotation(p, x.shape[-1], theta) for p in range(x.shape[1])])
    return torch.einsum("lij,hlj->hli", turns, x), turns


def unrotated(x, turns, relevance):
    """Eq. 8 for the rotation."""
    share = ratio(relevance, torch.einsum("lij,hlj->hli", turns, x))
    return x * torch.einsum("lij,hli->hlj", turns, share)


def through_rotary(x, theta, relevance):
    """PA-LRP: z_i = x_i cos_i ± x_j sin_i. Each product gets its share of z (Eq. 8), and each of its factors half (Eq. 7).

    Relevance of x, (heads, length, d), and of the angles at each place, (length,).
    """
    count, length, size = x.shape
    half = size // 2
    of_x, of_angles = torch.zeros_like(x), torch.zeros(length, dtype=x.dtype)
    for place in range(length):
        turn = rotation(place, size, theta)
        for head in range(count):
            for i in range(size):
                z = turn[i] @ x[head, place]
                for j in (i, (i + half) % size):
                    share = turn[i, j] * x[head, place, j] / z * relevance[head, place, i]
                    of_x[head, place, j] += share / 2
                    of_angles[place] += share / 2
    return of_x, of_angles


def silu(x):
    return x * x.sigmoid()


@torch.no_grad()
def llama_relevance(model, ids, attended, target, positional=False):
    """Relevance of one row's token embeddings (and rotary positions) for one logit at its last attended token."""
    config, length = model.config, len(ids)
    theta = config.rope_parameters["rope_theta"]
    count, groups = config.num_attention_heads, config.num_key_value_heads
    visible = attended.bool().expand(length, length) & torch.ones(length, length, dtype=torch.bool).tril()
    h = model.model.embed_tokens.weight[ids]
    kept = []
    for layer in model.model.layers:
        own, mlp = layer.self_attn, layer.mlp
        x = rms_of(layer.input_layernorm, h)
        flat_q, flat_k, v = (
            heads(of(m, x), n) for m, n in ((own.q_proj, count), (own.k_proj, groups), (own.v_proj, groups))
        )
        (q, turns), (k, _) = rotated(flat_q, theta), rotated(flat_k, theta)
        many_k, many_v = (y.repeat_interleave(count // groups, 0) for y in (k, v))
        weights = (q @ many_k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~visible, float("-inf")).softmax(-1)
        mixed = joined(weights @ many_v)
        out = of(own.o_proj, mixed)
        middle = h + out
        y = rms_of(layer.post_attention_layernorm, middle)
        gate, up = of(mlp.gate_proj, y), of(mlp.up_proj, y)
        down = of(mlp.down_proj, silu(gate) * up)
        kept.append((layer, h, x, flat_q, flat_k, turns, q, many_k, many_v, mixed, out, middle, y, gate, up, down))
        h = middle + down
    last = attended.nonzero().max()
    final = rms_of(model.model.norm, h[last])
    logits = of(model.score, final)

    relevance = torch.zeros_like(logits)
    relevance[target] = logits[target]
    of_h = torch.zeros_like(h)
    of_places = torch.zeros(length, 1, dtype=h.dtype)
    of_h[last] = through(model.score, final, relevance)  # Prop. 3.4: RMS norms pass relevance unchanged
    for layer, h, x, flat_q, flat_k, turns, q, many_k, many_v, mixed, out, middle, y, gate, up, down in reversed(kept):
        own, mlp = layer.self_attn, layer.mlp
        of_middle, of_down = add(middle, down, of_h)
        half = through(mlp.down_proj, silu(gate) * up, of_down) / 2  # Eq. 7: uniform; Eq. 9: SiLU unchanged
        of_middle = of_middle + through(mlp.gate_proj, y, half) + through(mlp.up_proj, y, half)
        of_h, of_out = add(h, out, of_middle)
        of_q, of_k, of_v = attention(q, many_k, many_v, visible, heads(through(own.o_proj, mixed, of_out), count))
        of_k, of_v = (z.reshape(groups, count // groups, length, -1).sum(1) for z in (of_k, of_v))
        if positional:
            (of_q, by_q), (of_k, by_k) = (through_rotary(z, theta, r) for z, r in ((flat_q, of_q), (flat_k, of_k)))
            of_places = of_places + (by_q + by_k).unsqueeze(1)
        else:
            of_q, of_k = unrotated(flat_q, turns, of_q), unrotated(flat_k, turns, of_k)
        of_h = of_h + through(own.q_proj, x, joined(of_q)) + through(own.k_proj, x, joined(of_k))
        of_h = of_h + through(own.v_proj, x, joined(of_v))
    return of_h + of_places / of_h.shape[1], logits


# --- compared ---------------------------------------------------------------------------------------------------------


def tiny_bert():
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=3, num_attention_heads=4, intermediate_size=24, num_labels=3
    )
    return BertForSequenceClassification(config), bert_relevance


def tiny_llama():
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=24,
        num_labels=3,
        pad_token_id=0,
    )
    return LlamaForSequenceClassification(config), llama_relevance


def sharpened(model):
    """Larger weights than at the start of training: attention is then far from uniform, and each rule matters."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    return model


class Float64RMSNorm(torch.nn.Module):
    """LlamaRMSNorm without its cast to float32, which would drown the comparison in rounding."""

    def __init__(self, weight, variance_epsilon):
        super().__init__()
        self.weight, self.variance_epsilon = weight, variance_epsilon

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


class Float64Rotary(torch.nn.Module):
    def __init__(self, size, theta):
        super().__init__()
        self.rates = theta ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)

    def forward(self, x, position_ids):
        angles = (position_ids.double().unsqueeze(-1) * self.rates).repeat(1, 1, 2)
        return angles.cos(), angles.sin()


def in_float64(model):
    """float64 throughout: LLaMA casts to float32 inside its norms and its rotary embedding."""
    model = model.double().eval()
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if type(module).__name__ == "LlamaRMSNorm":
                setattr(parent, name, Float64RMSNorm(module.weight, module.variance_epsilon))
            elif type(module).__name__ == "LlamaRotaryEmbedding":
                config = model.config
                size = config.hidden_size // config.num_attention_heads
                setattr(parent, name, Float64Rotary(size, config.rope_parameters["rope_theta"]))
    return model


# Relative error allowed. Eager LLaMA casts its softmax to float32, and the unmodified one its norms, too.
CASES = {
    "bert-sdpa": (tiny_bert, in_float64, "sdpa", 1e-10),
    "bert-eager": (tiny_bert, in_float64, "eager", 1e-10),
    "llama-sdpa": (tiny_llama, in_float64, "sdpa", 1e-10),
    "llama-eager": (tiny_llama, in_float64, "eager", 1e-6),
    "llama-unmodified": (tiny_llama, lambda model: model.double().eval(), "sdpa", 1e-6),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("engine", [LRP, PositionalLRP])
def test_the_engine_equals_the_formulas(case, engine):
    build, prepared, implementation, tolerance = CASES[case]
    model, explicit = build()
    model = prepared(sharpened(model))
    model.set_attn_implementation(implementation)
    ids = torch.randint(3, 40, (3, 8))
    attended = torch.ones_like(ids)
    attended[1, 5:] = 0
    ids[1, 5:] = 0
    target = torch.tensor([0, 2, 1])
    relevance = engine(model).attribute({"input_ids": ids, "attention_mask": attended}, target=target)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=attended).logits
    for row in range(3):
        expected, own_logits = explicit(model, ids[row], attended[row], target[row], positional=engine is PositionalLRP)
        assert torch.allclose(own_logits, logits[row], rtol=tolerance), "the explicit forward pass is not the model's"
        scale = expected.abs().max()
        assert scale > 0
        assert (relevance[row] - expected).abs().max() <= tolerance * scale


@pytest.mark.parametrize("build", [tiny_bert, tiny_llama])
@pytest.mark.parametrize(("engine", "composite"), [(LRP, "gradient"), (LRP, "cp_lrp"), (PositionalLRP, "attnlrp")])
def test_other_composites_do_not_equal_the_formulas(build, engine, composite):
    """Else the comparison above could not fail."""
    model, explicit = build()
    model = in_float64(sharpened(model))
    ids = torch.randint(3, 40, (1, 8))
    expected, _ = explicit(model, ids[0], torch.ones(8), torch.tensor(0))
    relevance = engine(model, composite).attribute({"input_ids": ids}, target=0)[0]
    assert (relevance - expected).abs().max() > 1e-2 * expected.abs().max()
