"""Settings: types, ranges, names, and the file they are written to."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.errors import ConfigError
from tinyllm.train import Settings
from tinyllm.train.settings import FIELDS, NAMES, read_toml

TEXT = st.text(max_size=20).filter(str.isprintable)


def test_later_layers_win():
    assert Settings.make({"steps": 7, "lr": 0.5}, {"steps": 9}).steps == 9
    assert Settings.make({"steps": 7}, {}).steps == 7
    assert Settings.make().steps == Settings().steps


@pytest.mark.parametrize(("wrong", "right"), [("n_heads", "n_head"), ("batchsize", "batch_size"), ("step", "steps")])
def test_an_unknown_setting_names_the_nearest(wrong, right):
    with pytest.raises(ConfigError, match=f"{wrong}.*did you mean '{right}'"):
        Settings.make({wrong: 1})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": "many"}, "steps must be a whole number, got 'many'"),
        ({"steps": True}, "steps must be a whole number"),
        ({"steps": 2.0}, "steps must be a whole number"),
        ({"lr": float("nan")}, "lr must be"),
        ({"lr": float("inf")}, "lr must be"),
        ({"dropout": 1.5}, "dropout must be from 0"),
        ({"held_out": 0}, "held_out must be from"),
        ({"tokenizer": "bp"}, "one of char, bpe, wordpiece, word; got 'bp'.*did you mean 'bpe'"),
        ({"n_embd": 128, "n_head": 5}, "5 heads do not divide 128 channels; 4 would"),
        ({"batch_size": 4, "accumulate": 5}, "cannot be cut"),
        ({"steps": 10, "warmup": 10}, "warmup must be shorter"),
        ({"data": "a\nb"}, "printable"),
    ],
)
def test_impossible_values_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        Settings.make(values)


def test_a_whole_number_may_stand_for_a_float():
    assert Settings(lr=1).lr == 1.0
    assert isinstance(Settings(lr=1).lr, float)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (20, 2), (5000, 100)])
def test_the_default_warm_up_fits_the_steps(steps, warmup):
    assert Settings(steps=steps, warmup=0).warmup_steps == 0
    assert Settings(steps=steps).warmup_steps == warmup


@given(data=TEXT, encoding=TEXT, lr=st.floats(0, 1), seed=st.integers(0, 2**63 - 1))
def test_the_file_gives_back_the_settings(tmp_path_factory, data, encoding, lr, seed):
    settings = Settings(data=data, encoding=encoding, lr=lr, seed=seed)
    path = tmp_path_factory.mktemp("settings") / "settings.toml"
    path.write_text(settings.to_toml(), encoding="utf-8")
    assert Settings.make(read_toml(path)) == settings
    assert tuple(tomllib.loads(settings.to_toml())) == NAMES


def test_every_setting_is_explained():
    assert all(field.metadata["help"] for field in FIELDS)


def test_a_file_that_is_no_toml_is_refused(tmp_path):
    path = tmp_path / "settings.toml"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_toml(path)
    path.write_text("steps: 3\n")
    with pytest.raises(ConfigError, match=r"is not a TOML file.*line 1"):
        read_toml(path)
    path.write_bytes(b"data = '\xff'")
    with pytest.raises(ConfigError, match="is not a TOML file"):
        read_toml(path)
