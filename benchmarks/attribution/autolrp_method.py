"""autoLRP (Alasad, package ``autolrp``, MIT) behind the interface of our methods: LRP on torch's autograd graph.

    pip install autolrp -c constraints.txt

It wraps a float input: token ids are given as ``inputs_embeds``, which BERT takes without a difference to its logits.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from torch import Tensor, nn

INSTALLED = importlib.util.find_spec("autolrp") is not None


def autolrp_relevance(model: nn.Module, batch: Mapping[str, Tensor], target: Tensor | None, preset: str = "base") -> Tensor:
    """Relevance of the predicted class's logit (or the target's), in the shape of the input or of its embeddings.

    Args:
        preset: ``"base"``, its defaults, or ``"attnlrp"``, its fragment of that name on top of them.
    """
    from autolrp import ATTNLRP, BASE, LRPConfig, tensor

    given = dict(batch)
    if "input_ids" in given:
        embeddings = model.get_input_embeddings()(given.pop("input_ids"))  # type: ignore[operator]
        name, values = "inputs_embeds", embeddings.detach()
    else:
        name, values = "x", given.pop("x")
    wrapped = tensor(values)
    outputs = model(**given, **{name: wrapped})
    logits = outputs if isinstance(outputs, Tensor) else outputs.logits
    index = logits.argmax(-1) if target is None else target
    score = logits.gather(1, index.unsqueeze(1)).sum()
    score.lrp(config=LRPConfig(rule={**BASE, **ATTNLRP} if preset == "attnlrp" else BASE))
    # Its relevance sums to 1, over the rows together: times the score, a row's sums to its logit and has that sign.
    return wrapped.relevance.as_subclass(Tensor) * score.detach().as_subclass(Tensor)
