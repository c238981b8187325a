"""IBM model 1 against NLTK's, which is written apart from ours and from the formula."""

import numpy as np
import pytest

from tinyllm.models.ibm1 import IBM1

pytestmark = pytest.mark.peers


def test_the_table_is_nltks():
    translate = pytest.importorskip("nltk.translate", reason="NLTK is not installed")
    rng = np.random.default_rng(0)

    def words(letters: str, n: int) -> list[str]:
        return rng.choice(list(letters), n, replace=False).tolist()  # theirs counts a repeated target word too often

    pairs = [(words("abcde", 4), words("vwxyz", 3)) for _ in range(30)]
    theirs = translate.IBMModel1([translate.AlignedSent(target, source) for source, target in pairs], 6)
    ours = IBM1().fit(*zip(*pairs, strict=True), iterations=6)
    for source in [None, *"abcde"]:
        for target in "vwxyz":
            assert ours.probability(target, source) == pytest.approx(theirs.translation_table[target][source], abs=1e-9)
