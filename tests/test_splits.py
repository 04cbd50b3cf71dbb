import numpy as np
import pytest

from mvsa_tune.errors import InputError
from mvsa_tune.splits import documents_split


def test_the_documents_split_is_a_shuffled_tenth() -> None:
    labels = [0, 1, 2, 2] * 1000
    split = documents_split(labels)
    assert (len(split.train[0]), len(split.validation[0])) == (3600, 400)
    assert sorted([*split.train[0], *split.validation[0]]) == list(range(4000))
    # train_test_split(range(4000), test_size=0.1, random_state=42) draws its test part from the head of this permutation
    assert np.array_equal(split.validation[0], np.random.RandomState(42).permutation(4000)[:400])


def test_too_few_samples_or_an_absent_class_are_refused() -> None:
    with pytest.raises(InputError, match="too few"):
        documents_split([0, 1, 2])
    with pytest.raises(InputError, match="labelled neutral"):
        documents_split([0, 2] * 20)
