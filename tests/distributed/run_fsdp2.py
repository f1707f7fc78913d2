"""One rank of a model sharded by FSDP2 (``fully_shard``) over two gloo processes, in a loop of its own; started by torchrun.

Each rank trains on every second half of a batch; in some steps a rank has no row to challenge, and must not keep the
other waiting. Writes the losses, masks and full weights to ``FOLDER/<rank>.pt``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from tiny import tiny_batch, tiny_bert, tiny_tokenizer
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from hf_challenger import ChallengeOptions, Challenger
from hf_challenger.challenge import challenger as challenge_module

challenge_module.SURE = 0.0  # a tiny model is sure of nothing
ROWS, STEPS = 4, 4  # of the joined batch


def options() -> ChallengeOptions:
    return ChallengeOptions(challenge_share=0.3, challenge_rate=0.3, challenge_selection="sample")


def part_of(batch: dict[str, torch.Tensor], rank: int, ranks: int) -> dict[str, torch.Tensor]:
    size = ROWS // ranks
    return {k: v[rank * size : (rank + 1) * size] for k, v in batch.items()}


def train(model: torch.nn.Module, rank: int, ranks: int) -> dict[str, list]:  # type: ignore[type-arg]
    challenger = Challenger(model, options(), tiny_tokenizer(), seed=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found: dict[str, list] = {"losses": [], "masks": [], "chosen": []}  # type: ignore[type-arg]
    for step in range(STEPS):
        batch = part_of(tiny_batch(ROWS, seed=step), rank, ranks)
        labels = batch.pop("labels")
        challenged = challenger.challenge(batch, labels, step, first_row=rank * ROWS // ranks)
        loss = model(**challenged.inputs, labels=labels).loss
        loss.backward()
        assert all(p.grad is not None for n, p in model.named_parameters() if "pooler" not in n)
        optimizer.step()
        optimizer.zero_grad()
        found["losses"].append(loss.item())
        found["masks"] += challenged.drop_mask.tolist()
        found["chosen"].append(int(challenged.challenged.sum()))
    return found


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    model = tiny_bert().double()
    for layer in model.bert.encoder.layer:
        fully_shard(layer)
    fully_shard(model)
    sharded = [isinstance(p, DTensor) and p.to_local().numel() < p.numel() for p in model.parameters()]
    found = train(model, rank, dist.get_world_size())
    full = {name: p.full_tensor().detach() for name, p in model.named_parameters()}
    torch.save({**found, "sharded": sharded, "weights": full}, folder / f"{rank}.pt")
    dist.barrier()  # a process that ends first would abort the other
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
