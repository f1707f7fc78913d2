"""Readers of data files, for the examples and for whoever needs them. Nothing here is imported by ``import hf_challenger``.

- :mod:`~hf_challenger.data.tables`: texts with labels from csv and json files; standard library only.
- :mod:`~hf_challenger.data.series`: time series. :mod:`~hf_challenger.data.images`: images.
- :mod:`~hf_challenger.data.arrays`: what the last two return. :mod:`~hf_challenger.data.rows`: the rows that a model takes.
"""
