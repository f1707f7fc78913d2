"""The support table, docs/support.md, made by running the tests that it names: ``python tests/support_table.py``.

A row says "works" because its tests pass, and "refused" with the error that was raised in them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "support.md"

TRAINER, SAVERS, TRAJECTORIES = "test_trainer.py", "test_trainer_savers.py", "invariant/test_trajectories.py"
SWAP, CUES = "test_swap.py", "test_trainer_cues.py"
TWO, FSDP2 = "distributed/test_two_processes.py", "distributed/test_fsdp2.py"
CALIBRATED = "calibration/test_callback.py"
FAULTS, BATCHES = "faults/test_faults.py", "faults/test_random_batches.py"


class Row(NamedTuple):
    """A promise, and the test that keeps it: ``what``, the test's file and name, whether it is refused, and a note."""

    what: str
    file: str
    test: str
    refused: bool = False
    note: str = ""


TABLE: dict[str, list[Row]] = {
    "Equal trajectories": [
        Row("`challenge_share=0` is `Trainer` bit for bit (one process, no accumulation)", TRAJECTORIES,
            "test_without_challenge_it_is_trainer_bit_for_bit"),
        Row("Gradient accumulation: a batch of 16 is 4 micro-batches of 4", TRAJECTORIES, "test_16_rows_at_once_are_4_times_4",
            note="single-label, multi-label and regression heads, challenge on and off; stock Trainer is off by the number"
            " of micro-batches for these heads (transformers issue 47688)"),
        Row("The same with label smoothing", TRAJECTORIES, "test_smoothed_losses_add_up_over_micro_batches_too"),
        Row("Data without a cue: `Trainer` bit for bit", CUES, "test_without_a_cue_it_is_trainer_bit_for_bit"),
        Row("The cue memory is the same for a batch of 16 and for 4 micro-batches of 4", CUES,
            "test_16_rows_at_once_are_4_times_4"),
        Row("Masks do not depend on padding", TRAJECTORIES, "test_masks_do_not_depend_on_padding"),
        Row("What cannot be calibrated is trained all the same, with a warning", CALIBRATED,
            "test_errors_of_any_kind_leave_the_model_as_it_was_trained",
            ),
        Row("Calling `train()` again, with a temperature folded in", CALIBRATED,
            "test_training_goes_on_from_the_model_as_it_was_trained"),
        Row("Checkpoints and resuming, with a temperature to come", CALIBRATED,
            "test_checkpoints_hold_the_model_as_it_was_trained"),
    ],
    "Several processes": [
        Row("DDP: two processes are one", TWO, "test_two_processes_are_one",
            note="gradients, weights, masks, logs and metrics, also with accumulation, an uneven last batch,"
            " `static_graph=True` and `ddp_find_unused_parameters=True`"),
        Row("FSDP2 (`fully_shard`), with `Challenger` in a loop", FSDP2, "test_sharded_training_is_that_of_one_process",
            note="tried on the CPU (gloo); through Trainer on GPUs it was not run"),
        Row("FSDP1", SAVERS, "test_fsdp1_is_refused", True),
        Row("DeepSpeed ZeRO-3", SAVERS, "test_zero_3_is_refused", True,
            "told by ZeRO-3's mark on the parameters; DeepSpeed itself was not run, nor its stages 1 and 2"),
        Row("`torch.nn.DataParallel` (several GPUs, one process)", SAVERS, "test_dataparallel_is_refused", True),
    ],
    "Precision and memory": [
        Row("bf16 autocast", SAVERS, "test_bf16_autocast_is_close_to_float32", note="fp16 needs a GPU and was not run"),
        Row("Relevance is summed in float32", SAVERS, "test_relevance_under_autocast_is_summed_in_float32"),
        Row("bf16 weights", SAVERS, "test_bf16_weights"),
        Row("Gradient checkpointing, reentrant or not", SAVERS, "test_gradient_checkpointing_changes_no_gradient"),
        Row("`torch_compile=True`", SAVERS, "test_torch_compile", note="backends `eager` and `inductor`, on the CPU"),
        Row("`auto_find_batch_size`", SAVERS, "test_auto_find_batch_size_starts_afresh"),
        Row("`torch_empty_cache_steps`", SAVERS, "test_torch_empty_cache_steps"),
        Row("NEFTune", SAVERS, "test_neftune_noises_training_and_not_relevance"),
    ],
    "Adapters": [
        Row("PEFT LoRA", SAVERS, "test_lora_trains_the_adapters_alone"),
        Row("Frozen encoder", SAVERS, "test_frozen_encoder_stays_as_it_is"),
        Row("Quantized base models", SAVERS, "test_quantized_is_refused", True),
    ],
    "Losses and tasks": [
        Row("Single-label heads; multi-label and regression heads row by row; `return_dict=False`", TRAINER, "test_problems"),
        Row("`label_smoothing_factor`", TRAINER, "test_label_smoothing_is_trainers"),
        Row("`compute_loss_func`", TRAINER, "test_users_loss_gets_the_challenged_batch"),
        Row("A `compute_loss` of one's own that calls ours", SWAP, "test_a_loss_that_calls_ours_says_nothing_and_the_card_counts"),
        Row("A `compute_loss` of one's own that does not: nothing is challenged, and told at the end", SWAP,
            "test_a_loss_that_never_calls_ours_is_told_at_the_end_and_on_the_card"),
        Row("Several heads, label columns and auxiliary losses", SWAP,
            "test_several_label_columns_and_heads_are_challenged_and_all_of_them_learn"),
        Row("A forward of one's own without `output_hidden_states`, and a column that it does not take: calibrated too", SWAP,
            "test_a_column_for_the_users_loss_does_not_reach_the_attribution"),
        Row("Multi-label and regression heads, row by row (`challenge_selection='sample'`)", SWAP,
            "test_rows_without_a_single_class_are_challenged_row_by_row_where_that_is_asked_for"),
        Row("`label_names`", TRAINER, "test_labels_by_another_name"),
        Row("Labels of -100", TRAINER, "test_ignored_rows_stay_whole_and_weigh_nothing"),
        Row("Sentence pairs", TRAINER, "test_sentence_pairs"),
        Row("Other tasks and models, by default: trained as `Trainer`, with one warning", SWAP,
            "test_what_cannot_be_challenged_is_trained_as_trainer_with_one_warning",
            note="token classification, question answering, multiple choice, masked and causal language models, generation,"
            " an unknown main input, quantized weights, a forward that needs labels"),
        Row("The same with a challenge option that was set", SWAP,
            "test_with_an_option_that_was_set_it_is_refused_with_the_way_out", True),
    ],
    "Data": [
        Row("`remove_unused_columns`", TRAINER, "test_unused_columns_are_removed"),
        Row("Grouping by length", TRAINER, "test_group_by_length"),
        Row("Iterable datasets", TRAINER, "test_iterable_dataset"),
    ],
    "State and search": [
        Row("Resuming is the unbroken run, bit for bit", TRAINER, "test_resume_is_an_unbroken_run"),
        Row("`load_best_model_at_end` with `metric_for_best_model='ece'`", TRAINER, "test_best_model_has_the_lowest_ece"),
        Row("`compute_metrics`, `preprocess_logits_for_metrics`", TRAINER, "test_evaluate_adds_calibration"),
        Row("`batch_eval_metrics`", TRAINER, "test_evaluate_batch_by_batch_gives_the_same"),
        Row("`hyperparameter_search` over challenge options (optuna)", TRAINER, "test_optuna_searches_challenge_options"),
        Row("Options out of range in a search", TRAINER, "test_search_outside_the_range_is_refused", True),
        Row("`eval_on_start`, early stopping", TRAINER, "test_eval_on_start_and_early_stopping"),
        Row("Callbacks that change challenge options", TRAINER, "test_a_callback_may_change_options"),
    ],
    "Faults": [
        Row("SIGTERM or SIGKILL in mid-epoch, then resuming: the unbroken run", FAULTS,
            "test_killed_in_mid_epoch_and_resumed_is_the_unbroken_run"),
        Row("A worker that dies under DDP ends the run with an error", FAULTS, "test_worker_that_dies_ends_the_run"),
        Row("A full disk at a checkpoint leaves the last one good", FAULTS,
            "test_full_disk_at_a_checkpoint_leaves_the_last_one_good"),
        Row("A NaN loss ends the run before it reaches the weights", TRAINER,
            "test_nan_weights_end_the_run_before_the_step", True),
        Row("NaN relevance: the row stays whole", TRAINER, "test_nan_relevance_stays_whole_with_one_warning"),
        Row("Random bad batches: a step, or an error that names the cause", BATCHES, "test_bad_batches"),
    ],
}  # fmt: skip

HEAD = """# What works with ChallengerTrainer

Made by `python tests/support_table.py` from the tests that it names: *works* means that they passed, *refused* quotes the
`ChallengerError` that they provoked. All of it ran on the CPU.

Nothing was ever run on a GPU. `python benchmarks/device_check.py` runs in eight minutes what needs one: step costs, bf16, fp16, FSDP2
through Trainer, the tests marked `gpu`, and training with a planted cue. Its small form was run on the CPU.

Not run at all, for want of the hardware or the package: DeepSpeed ZeRO-1 and ZeRO-2, tensor parallelism, TPUs, and CUDA graphs.

The loss is the model's own, or that of `compute_loss_func`, on the challenged batch.

A model that is refused here is trained as by `Trainer`, with one warning, where no challenge option is set.
Tests of this page that set nothing else hide row by row (`challenge_selection="sample"`).

## Launching on several GPUs and machines

<!-- not run: needs several GPUs and machines -->
```bash
torchrun --nproc_per_node 4 train.py                                # 4 GPUs of one machine
torchrun --nnodes 2 --node_rank 0 --nproc_per_node 4 \\
    --master_addr <address of machine 0> --master_port 29500 train.py   # on machine 0; --node_rank 1 on machine 1
```

`accelerate launch` does the same, and `per_device_train_batch_size` times the number of processes is the size of a step.
"""


class Recorder:
    """Outcomes by test function, and the last ChallengerError made in each."""

    def __init__(self) -> None:
        self.passed: dict[str, bool] = {}
        self.errors: dict[str, str] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item):  # type: ignore[no-untyped-def]
        from hf_challenger import ChallengerError

        def remember(error: ChallengerError, *args: object) -> None:
            super(ChallengerError, error).__init__(*args)
            self.errors[item.originalname] = str(error)  # type: ignore[attr-defined]

        ChallengerError.__init__ = remember  # type: ignore[assignment]
        try:
            return (yield)
        finally:
            del ChallengerError.__init__  # type: ignore[misc]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            name = report.nodeid.split("::")[1].split("[")[0]
            self.passed[name] = self.passed.get(name, True) and report.passed


def page(recorder: Recorder) -> str:
    parts = [HEAD]
    for area, rows in TABLE.items():
        parts.append(f"\n## {area}\n\n| | | test |\n|---|---|---|\n")
        for row in rows:
            verdict = f"refused: {recorder.errors[row.test]}" if row.refused else "works"
            verdict += f" ({row.note})" if row.note else ""
            parts.append(f"| {row.what} | {verdict} | `{row.file}::{row.test}` |\n")
    return "".join(parts)


def main() -> int:
    recorder = Recorder()
    names = [f"{HERE / row.file}::{row.test}" for rows in TABLE.values() for row in rows]
    pytest.main(["-q", *names], plugins=[recorder])
    missing = [row.test for rows in TABLE.values() for row in rows if not recorder.passed.get(row.test)]
    missing += [row.test for rows in TABLE.values() for row in rows if row.refused and row.test not in recorder.errors]
    if missing:
        print(f"docs/support.md was not written, because these did not pass: {', '.join(missing)}")
        return 1
    PAGE.write_text(page(recorder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
