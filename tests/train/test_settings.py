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


def test_muon_moves_the_matrices_of_the_blocks_alone(tmp_path):
    from tinyllm.optim import AdamW, Muon
    from tinyllm.train.job import prepare_job

    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat. " * 200)
    settings = {"data": str(path), "n_layer": 2, "n_embd": 16, "n_head": 2, "block_size": 16, "threads": 1}
    job = prepare_job(Settings.make(settings))
    adamw, muon = job.optimizer().optimizers
    names = {id(p): name for name, p in job.model.named_parameters()}
    moved = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    kinds = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert moved == {f"transformer.h.{i}.{kind}.weight" for i in (0, 1) for kind in kinds}
    rest = {names[id(p)] for group in adamw.param_groups for p in group["params"]}
    assert moved | rest == set(names.values())
    assert (type(adamw), type(muon)) == (AdamW, Muon)
    assert type(prepare_job(Settings.make(settings, {"optimizer": "adamw"})).optimizer()) is AdamW
    with pytest.raises(ConfigError, match="lstm has none"):
        prepare_job(Settings.make(settings, {"model": "lstm", "optimizer": "muon"})).optimizer()
