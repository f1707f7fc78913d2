"""What a user's script does with the Hub, in a process of its own: ``python push.py SCENARIO FOLDER`` (see test_hub.py)."""

from __future__ import annotations

import json
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from tiny import tiny_bert, tiny_data, tiny_tokenizer

from hf_challenger import ChallengerConfig, ChallengerTrainer

torch.set_num_threads(1)


def trainer(folder: Path, **options: Any) -> ChallengerTrainer:
    args = ChallengerConfig(
        output_dir=str(folder),
        use_cpu=True,
        report_to="none",
        max_steps=4,
        save_strategy="steps",
        save_steps=2,
        per_device_train_batch_size=8,
        disable_tqdm=True,
        hub_token="hf_loopback",
        **options,
    )
    return ChallengerTrainer(
        model=tiny_bert(),
        args=args,
        train_dataset=tiny_data(),
        eval_dataset=tiny_data(12),
        processing_class=tiny_tokenizer(),
    )


def error_of(call: Any) -> dict[str, str]:
    try:
        call()
    except Exception as error:
        shown = "".join(traceback.format_exception(error))
        return {"type": type(error).__name__, "shown": shown, "notes": "\n".join(getattr(error, "__notes__", []))}
    return {"type": "none", "shown": "", "notes": ""}


def every_save(folder: Path) -> dict[str, Any]:
    """push_to_hub=True, the default strategy; then card and pictures; then a metadata error of the user's own."""
    from huggingface_hub import ModelCard

    run = trainer(folder / "every-save", push_to_hub=True)
    run.train()
    results = run.evaluate()
    run.create_model_card(
        language="en",
        license="mit",
        dataset="Words",
        dataset_tags="me/words",
        reliability_diagram=Figure(),
        heat_maps=[Figure()],
    )
    run.save_model()
    ModelCard.load(folder / "every-save" / "README.md").validate()
    again = str(run.push_to_hub(commit_message="Nothing new").oid)
    bad = error_of(lambda: run.push_to_hub(license=["not", "a string"]))
    return {"results": results, "again": again, "bad": bad}


def all_checkpoints(folder: Path) -> dict[str, Any]:
    """hub_strategy="all_checkpoints" under a name of one's own; then anybody loads the model from the Hub."""
    from transformers import AutoModelForSequenceClassification

    run = trainer(folder / "out", push_to_hub=True, hub_strategy="all_checkpoints", hub_model_id="team/all")
    run.train()
    run.push_to_hub(tags=["mine"])
    loaded = AutoModelForSequenceClassification.from_pretrained("team/all", token="hf_loopback")
    equal = all(torch.equal(a, b) for a, b in zip(loaded.parameters(), run.model.parameters(), strict=True))
    return {"equal": equal}


def only_the_end(folder: Path) -> dict[str, Any]:
    """hub_strategy="end": nothing goes up before the user says so."""
    run = trainer(folder / "end", push_to_hub=True, hub_strategy="end")
    run.train()
    run.push_to_hub()
    return {}


def refused(folder: Path) -> dict[str, Any]:
    """The Hub refuses: the repository, then an upload in the background, then the last upload; then it gives way."""
    said: dict[str, Any] = {}
    late = trainer(folder / "late")
    late.train()
    said["create"] = error_of(late.push_to_hub)
    said["saved"] = sorted(p.name for p in (folder / "late").iterdir())
    run = trainer(folder / "refused", push_to_hub=True, hub_always_push=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.train()
    said["warned"] = [str(w.message) for w in caught if type(w.message).__name__ == "ChallengerWarning"]
    said["commit"] = error_of(run.push_to_hub)
    said["whole"] = {p.name: p.stat().st_size for p in (folder / "refused").iterdir() if p.is_file()}
    said["retry"] = error_of(run.push_to_hub)
    said["bug"] = error_of(lambda: run.push_to_hub(no_such_argument=1))
    return said


if __name__ == "__main__":
    names, place = sys.argv[1:-1], Path(sys.argv[-1])
    place.joinpath("said.json").write_text(json.dumps({name: globals()[name](place) for name in names}))
