"""The study of overfitting: every remedy runs, and doing nothing learns by heart."""

import pytest

from tinyllm.errors import ConfigError, DataError
from tinyllm.study import as_table, draw, study_regularisation


@pytest.fixture
def texts(tmp_path):
    """Sixty texts whose labels are drawn by lot, so that only learning by heart helps."""
    path = tmp_path / "t.csv"
    rows = [f"word{i} other{i % 7} thing{i % 5},{'ab'[i * i % 3 % 2]}" for i in range(60)]
    path.write_text("text,label\n" + "\n".join(rows))
    return str(path)


def test_nothing_learns_by_heart_and_the_picture_is_drawn(texts, tmp_path):
    curves = study_regularisation(texts, texts=20, steps=40, only=["nothing", "swap"])
    assert [c.name for c in curves] == ["nothing", "swap"]
    assert curves[0].steps == [0, 20, 40]
    assert curves[0].train[-1] < 0.5 * curves[0].train[0]
    assert curves[0].train[-1] < curves[0].held_out[-1]
    draw(curves, tmp_path / "r.png")
    assert (tmp_path / "r.png").stat().st_size > 5000
    assert "lowest held out" in as_table(curves)


def test_wrong_names_and_too_few_texts_are_named(texts):
    with pytest.raises(ConfigError, match="no remedy 'sleep'; there are nothing, dropout"):
        study_regularisation(texts, texts=20, only=["sleep"])
    with pytest.raises(DataError, match="ask for fewer"):
        study_regularisation(texts, texts=500)
