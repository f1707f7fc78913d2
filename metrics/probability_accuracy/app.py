"""The demonstration page of a Space that holds this folder."""

import evaluate
from evaluate.utils import launch_gradio_widget

launch_gradio_widget(evaluate.load("probability_accuracy.py"))
