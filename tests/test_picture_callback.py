"""PictureCallback: its pictures are read back from where the reporters keep them, and training does not notice it."""

import io
import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import Trajectory, tiny_bert, tiny_data
from torch.utils.data import IterableDataset
from transformers import PatchTSTConfig, PatchTSTForClassification, Trainer

from hf_challenger import ChallengerError, ChallengerWarning, NoEffectWarning, PictureCallback, visualize

mpl.use("agg")

pytestmark = pytest.mark.usefixtures("any_confidence")
BOTH = ["eval/before_and_after", "eval/reliability_diagram"]


@pytest.fixture
def board(tmp_path, monkeypatch):
    """The folder that transformers' TensorBoardCallback writes to."""
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    return tmp_path / "board"


def read(board):
    return EventAccumulator(str(board), size_guidance={"images": 0}).Reload()


def pixels(image):
    from matplotlib.image import imread

    return imread(io.BytesIO(image.encoded_image_string))[..., :3]


def has_colour(picture, colour):
    return bool((np.abs(picture - np.array(mpl.colors.to_rgb(colour))).max(-1) < 0.06).any())


def test_pictures_of_each_evaluation_are_in_tensorboard_beside_the_scalars(board, trainer):
    run = trainer(report_to="tensorboard", max_steps=4, eval_strategy="steps", eval_steps=2)
    run.add_callback(PictureCallback(run))
    run.train()
    events = read(board)
    assert sorted(events.Tags()["images"]) == BOTH
    assert {"eval/ece", "train/challenged_share"} <= set(events.Tags()["scalars"])
    for tag in BOTH:
        assert [image.step for image in events.Images(tag)] == [2, 4]
    diagram, rows = (pixels(events.Images(tag)[-1]) for tag in reversed(BOTH))
    assert min(*diagram.shape[:2], *rows.shape[:2]) > 300
    assert has_colour(diagram, visualize.BLUE)
    assert has_colour(rows, visualize.ORANGE)


def test_the_diagram_is_of_the_scores_that_the_evaluation_computed(board, trainer, monkeypatch):
    drawn = []

    def spy(probabilities, labels):
        drawn.append((probabilities, labels))
        return real(probabilities, labels)

    real = visualize.reliability_diagram
    monkeypatch.setattr(visualize, "reliability_diagram", spy)
    run = trainer(report_to="tensorboard")
    run.add_callback(PictureCallback(run, rows=0))
    run.evaluate()
    prediction = run.predict(run.eval_dataset)
    ((probabilities, labels),) = drawn
    torch.testing.assert_close(probabilities, torch.tensor(prediction.predictions).softmax(1))
    assert labels.tolist() == prediction.label_ids.tolist()
    assert read(board).Tags()["images"] == [BOTH[1]]


def test_training_is_the_same_bit_for_bit(board, trainer):
    class Augmented(torch.utils.data.Dataset):
        """Draws from all the streams that augmentation uses."""

        def __init__(self):
            self.rows = list(tiny_data(16))

        def __len__(self):
            return len(self.rows)

        def __getitem__(self, i):
            drop = torch.rand(()).item() + random.random() + np.random.rand() > 1.5
            row = self.rows[i]
            return {k: v[: 3 if drop else None] if isinstance(v, list) else v for k, v in row.items()}

    found = []
    for with_pictures in (False, True):
        random.seed(0), np.random.seed(0)
        recorder = Trajectory()
        options = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 1}
        run = trainer(
            model=tiny_bert(dropout=0.1),
            data=Augmented(),
            report_to="tensorboard",
            kwargs={"callbacks": [recorder]},
            **options,
        )
        if with_pictures:
            run.add_callback(PictureCallback(run))
        run.train()
        found.append(recorder.weights)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert "eval/before_and_after" in read(board).Tags()["images"]


def test_each_evaluation_set_has_its_own(board, trainer):
    sets = {"near": tiny_data(12, seed=1), "far": tiny_data(12, seed=2)}
    run = trainer(report_to="tensorboard", kwargs={"eval_dataset": sets})
    run.add_callback(PictureCallback(run, rows=0))
    run.evaluate()
    assert sorted(read(board).Tags()["images"]) == ["eval/far_reliability_diagram", "eval/near_reliability_diagram"]


def test_regression_has_no_reliability_diagram_and_plain_training_nothing_hidden(board, trainer):
    data = tiny_data(16, "regression")
    run = trainer(tiny_bert(num_labels=1), data, report_to="tensorboard", kwargs={"eval_dataset": data})
    run.add_callback(PictureCallback(run))
    run.evaluate()
    assert read(board).Tags()["images"] == BOTH[:1]
    plain = trainer(report_to="tensorboard", challenge_share=0.0)
    plain.add_callback(PictureCallback(plain))
    plain.evaluate()
    assert sorted(read(board).Tags()["images"]) == BOTH


def test_series_have_both(board, config, trainer):
    kind = {"num_input_channels": 2, "context_length": 24, "patch_length": 4, "patch_stride": 4, "d_model": 8}
    small = {"num_attention_heads": 2, "num_hidden_layers": 1, "ffn_dim": 16, "num_targets": 3}
    rows = [{"past_values": torch.randn(24, 2), "target_values": i % 3} for i in range(8)]
    run = trainer(
        PatchTSTForClassification(PatchTSTConfig(**kind, **small)),
        rows,
        args=config(report_to="tensorboard", label_names=["target_values"]),
        kwargs={"eval_dataset": rows, "processing_class": None},
    )
    run.add_callback(PictureCallback(run))
    run.evaluate()
    assert sorted(read(board).Tags()["images"]) == BOTH


def test_rows_that_cannot_be_challenged_are_told_once_and_training_goes_on(board, trainer):
    too_short = [{"input_ids": [2, 5, 3], "attention_mask": [1, 1, 1], "labels": 0}] * 8
    run = trainer(data=too_short, report_to="tensorboard", max_steps=2, eval_strategy="steps", eval_steps=1)
    run.add_callback(PictureCallback(run))
    with pytest.warns(ChallengerWarning, match="before_and_after cannot be drawn: None of the 3 rows") as told:
        run.train()
    assert sum("cannot be drawn" in str(w.message) for w in told) == 1
    assert read(board).Tags()["images"] == BOTH[1:]


def test_without_a_reporter_that_takes_pictures_it_says_so(trainer):
    run = trainer()
    run.add_callback(PictureCallback(run))
    with pytest.warns(NoEffectWarning, match="Set report_to='tensorboard'"):
        run.evaluate()


def test_another_trainer_is_refused(config):
    with pytest.raises(ChallengerError, match="was given a Trainer; a ChallengerTrainer is expected"):
        PictureCallback(Trainer(tiny_bert(), config()))


def test_wandb_gets_them(tmp_path, trainer, monkeypatch):
    pytest.importorskip("wandb")
    for name, value in {"MODE": "offline", "DIR": str(tmp_path), "SILENT": "true", "ERROR_REPORTING": "false"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    run = trainer(report_to="wandb", max_steps=2, eval_strategy="steps", eval_steps=2)
    run.add_callback(PictureCallback(run))
    run.train()
    files = [str(path.relative_to(tmp_path)) for path in Path(tmp_path).rglob("media/images/**/*.png")]
    assert sorted(name.split("media/images/")[1].rsplit("_", 2)[0] for name in files) == BOTH


IN_TRACKIO = """
from tiny import tiny_bert, tiny_data, tiny_tokenizer
from hf_challenger import ChallengerConfig, ChallengerTrainer, PictureCallback

args = ChallengerConfig("out", report_to="trackio", project="pictures", eval_strategy="steps", eval_steps=2, max_steps=2)
parts = {"train_dataset": tiny_data(), "eval_dataset": tiny_data(12), "processing_class": tiny_tokenizer()}
run = ChallengerTrainer(tiny_bert(), args, **parts)
run.add_callback(PictureCallback(run))
run.train()
"""


def test_trackio_gets_them(tmp_path):
    pytest.importorskip("trackio")
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(folders)}  # read at its import
    subprocess.run([sys.executable, "-c", IN_TRACKIO], check=True, cwd=tmp_path, env=environment, timeout=300)
    with sqlite3.connect(next(tmp_path.glob("*.db"))) as database:
        logged = "".join(str(row[0]) for row in database.execute("SELECT metrics FROM metrics"))
    assert all(tag in logged for tag in BOTH)
    assert len(list((tmp_path / "media").rglob("*.png"))) == 2


class Stream(IterableDataset):
    def __iter__(self):
        return iter(tiny_data())


@pytest.mark.parametrize("of", ["torch", "datasets"])
def test_a_stream_has_no_first_rows_to_show_and_training_goes_on(board, trainer, of):
    stream = tiny_data().to_iterable_dataset() if of == "datasets" else Stream()
    run = trainer(data=stream, report_to="tensorboard", max_steps=2, eval_strategy="steps", eval_steps=1)
    run.add_callback(PictureCallback(run))
    run.train()
    assert run.state.global_step == 2
