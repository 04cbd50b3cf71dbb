import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from mvsa_tune.training import metrics


@pytest.mark.parametrize("classes", [[0, 1, 2], [0, 2]])  # with a class that never occurs, too
def test_scores_are_scikit_learns(classes: list[int]) -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        true, predicted = generator.choice(classes, 50), generator.choice(classes, 50)
        matrix = confusion_matrix(true, predicted, labels=[0, 1, 2])
        known = {"labels": [0, 1, 2], "zero_division": 0}
        assert metrics.accuracy(matrix) == pytest.approx(accuracy_score(true, predicted))
        assert metrics.f1_macro(matrix) == pytest.approx(f1_score(true, predicted, average="macro", **known))
        assert metrics.f1_weighted(matrix) == pytest.approx(f1_score(true, predicted, average="weighted", **known))


def test_scores_work_on_any_leading_axes() -> None:
    matrices = np.random.default_rng(1).integers(0, 9, (4, 5, 3, 3))
    for score in (metrics.accuracy, metrics.f1_macro, metrics.f1_weighted):
        assert score(matrices).shape == (4, 5)
        assert score(matrices)[2, 3] == pytest.approx(score(matrices[2, 3]))
