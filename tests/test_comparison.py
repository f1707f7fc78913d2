"""The table that the example scripts print."""

from hf_challenger.comparison import comparison_table

COLUMNS = {"accuracy ↑": "test_accuracy", "seconds": "seconds"}


def test_one_row_a_method_with_means_and_deviations() -> None:
    results = [{"method": "challenger", "test_accuracy": a, "seconds": s} for a, s in ((0.5, 10), (0.7, 14))]
    results.append({"method": "plain", "test_accuracy": 0.25, "seconds": 3.4})
    assert comparison_table(results, COLUMNS).splitlines() == [
        "| trained with | accuracy ↑ | seconds |",
        "|---|---|---|",
        "| `Trainer` | 0.250 | 3 |",
        "| `ChallengerTrainer` | 0.600 ± 0.141 | 12 ± 3 |",
    ]


def test_a_single_method_is_a_table_too() -> None:
    assert "`Trainer`" not in comparison_table([{"method": "challenger", "test_accuracy": 1, "seconds": 1}], COLUMNS)
