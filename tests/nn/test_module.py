"""Module: names, parameters, saving and loading."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyllm as tl
from tinyllm import nn
from tinyllm.errors import CheckpointError


class Block(nn.Module):
    def __init__(self, rng: np.random.Generator) -> None:
        self.ln_1 = nn.LayerNorm(4)
        self.fc = nn.Linear(4, 3, rng=rng)
        self.mask = tl.tensor(np.tri(4, dtype=bool))


class Model(nn.Module):
    def __init__(self, rng: np.random.Generator, n: int = 2) -> None:
        self.scale = tl.tensor(np.float32(2.0), requires_grad=True)
        self.h = [Block(rng) for _ in range(n)]
        self.size = 7


def names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters()]


def test_names_are_paths_through_lists(rng):
    block = ["ln_1.weight", "ln_1.bias", "fc.weight", "fc.bias"]
    assert names(Model(rng)) == ["scale", *(f"h.{i}.{name}" for i in range(2) for name in block)]


def test_modules_in_tuples_dicts_and_nested_lists_are_found(rng):
    class Holder(nn.Module):
        def __init__(self) -> None:
            self.pair = (nn.LayerNorm(2), [nn.LayerNorm(3, bias=False)])
            self.by_name = {"a": nn.RMSNorm(4)}

    assert names(Holder()) == ["pair.0.weight", "pair.0.bias", "pair.1.0.weight", "by_name.a.weight"]


@given(n=st.integers(0, 4))
def test_count_is_the_sum_of_sizes(n):
    model = Model(np.random.default_rng(0), n)
    assert model.num_parameters() == 1 + n * (4 + 4 + 12 + 3) == sum(p.size for p in model.parameters())


def test_typo_is_an_attribute_error_with_the_nearest_name(rng):
    with pytest.raises(AttributeError, match=r"Linear has no attribute 'wieght'; did you mean 'weight'\?"):
        _ = nn.Linear(2, 2, rng=rng).wieght
    assert not hasattr(Model(rng), "__deepcopy__")


def test_integer_tensors_frozen_tensors_and_none_are_no_parameters(rng):
    layer = nn.Linear(2, 2, rng=rng)
    layer.ids = tl.tensor([1, 2])
    layer.constant = tl.tensor([1.0])
    assert names(layer) == ["weight", "bias"]
    layer.bias = None
    assert names(layer) == ["weight"]
    layer.weight = tl.tensor([1.0])
    assert names(layer) == []


def test_a_frozen_parameter_stays_one(rng):
    layer = nn.Linear(2, 2, rng=rng)
    layer.weight.requires_grad = False
    assert names(layer) == ["weight", "bias"]
    assert set(layer.state_dict()) == {"weight", "bias"}


def test_deleted_parameter_is_gone(rng):
    layer = nn.Linear(2, 2, rng=rng)
    del layer.bias
    layer.bias = tl.tensor([1.0])
    assert names(layer) == ["weight"]


def test_a_computed_tensor_is_refused(rng):
    layer = nn.Linear(2, 2, rng=rng)
    with pytest.raises(ValueError, match="computed Tensor"):
        layer.weight = layer.weight * 2


def test_a_parameter_in_a_list_is_refused():
    module = nn.Module()
    module.weights = [tl.tensor([1.0], requires_grad=True)]
    with pytest.raises(TypeError, match=r"weights\.0"):
        list(module.parameters())


def test_shared_parameters_and_modules_are_counted_once(rng):
    class Tied(nn.Module):
        def __init__(self) -> None:
            self.wte = nn.Embedding(5, 4, rng=rng)
            self.head = nn.Linear(4, 5, bias=False, rng=rng)
            self.head.weight = self.wte.weight
            self.again = self.wte

    tied = Tied()
    assert names(tied) == ["wte.weight"]
    assert tied.num_parameters() == 20
    assert [name for name, _ in tied.named_modules()] == ["", "wte", "head"]
    new = rng.normal(size=(5, 4)).astype(np.float32)
    for key in ("wte.weight", "head.weight", "again.weight"):
        tied.load_state_dict({key: new})
        np.testing.assert_array_equal(tied.head.weight.data, new)
        tied.wte.weight.assign_(np.zeros((5, 4)))
    tied.load_state_dict({"wte.weight": new, "head.weight": new})
    with pytest.raises(CheckpointError, match=r"head.weight and wte.weight are one parameter"):
        tied.load_state_dict({"wte.weight": new, "head.weight": new + 1})


def test_a_cycle_of_modules_ends(rng):
    parent, child = nn.Module(), nn.Linear(2, 2, rng=rng)
    parent.child, child.parent, child.me = child, parent, child
    assert names(parent) == ["child.weight", "child.bias"]
    assert "Linear" in repr(parent)


def test_state_dict_holds_copies(rng):
    layer = nn.Linear(3, 2, rng=rng)
    state = layer.state_dict()
    state["weight"][:] = 9
    assert (layer.weight.data != 9).all()


@given(seed=st.integers(0, 2**31), n=st.integers(0, 3))
def test_state_round_trip_is_exact(seed, n):
    one, other = Model(np.random.default_rng(seed), n), Model(np.random.default_rng(seed + 1), n)
    assert other.load_state_dict(one.state_dict()) == ([], [])
    for (name, p), (_, q) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        np.testing.assert_array_equal(p.data, q.data, err_msg=name)


def test_loading_is_in_place_and_noticed_by_the_tape(rng):
    layer = nn.Linear(3, 2, rng=rng)
    weight = layer.weight
    y = layer(tl.tensor(rng.normal(size=(4, 3)).astype(np.float32), requires_grad=True))
    layer.load_state_dict(layer.state_dict())
    assert layer.weight is weight
    with pytest.raises(RuntimeError, match="overwritten"):
        y.sum().backward()


def test_loading_lists_everything_wrong_and_changes_nothing(rng):
    layer = nn.FeedForward(4, 8, rng=rng)
    before = layer.state_dict()
    bad = {
        "up.weight": np.zeros((4, 8)),
        "up.bias": np.zeros(8, dtype=complex),
        "down.weight": np.zeros((4, 8)),
        "down.biass": np.zeros(4),
    }
    with pytest.raises(CheckpointError) as info:
        layer.load_state_dict(bad)
    message = str(info.value)
    for part in (
        "missing: down.bias",
        "unexpected: down.biass",
        "up.weight: shape (4, 8), expected (8, 4)",
        "up.bias: dtype complex128 cannot become float32",
    ):
        assert part in message
    assert "down.weight" not in message
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_loading_without_strict_reports_what_it_passed_over(rng):
    layer = nn.Linear(3, 2, rng=rng)
    passed = layer.load_state_dict({"weight": np.ones((2, 3)), "other": np.ones(1)}, strict=False)
    assert passed == (["bias"], ["other"])
    assert (layer.weight.data == 1).all()
    with pytest.raises(CheckpointError, match="shape"):
        layer.load_state_dict({"weight": np.ones((3, 2))}, strict=False)


def test_loading_converts_to_the_dtype_of_the_parameter(rng):
    layer = nn.Linear(1, 1, rng=rng)
    layer.load_state_dict({"weight": [[1]], "bias": tl.tensor([0.1], dtype="float64")})
    assert layer.bias.dtype == np.float32
    assert layer.bias.item() == np.float32(0.1)
    with pytest.raises(CheckpointError, match="dtype"):
        layer.load_state_dict({"weight": [["1"]], "bias": [0.0]})


def test_train_and_eval_reach_every_module(rng):
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    assert all(m.training for _, m in model.named_modules())
    assert model.eval() is model
    assert not any(m.training for _, m in model.named_modules())
    assert model.train()[1][0].training
    assert nn.Dropout().training  # the class itself is as it was


def test_zero_grad_forgets(rng):
    layer = nn.Linear(3, 2, rng=rng)
    layer(np.ones((1, 3), np.float32)).sum().backward()
    assert layer.weight.grad is not None
    layer.zero_grad()
    assert layer.weight.grad is None
    assert layer.bias.grad is None


def test_repr_shows_the_tree_with_counts(rng):
    assert repr(Model(rng, 1)).splitlines() == [
        "Model(size=7)  24 parameters",
        "  h.0: Block()  23 parameters",
        "    ln_1: LayerNorm(normalized_shape=(4,), eps=1e-05)  8 parameters",
        "    fc: Linear(in_features=4, out_features=3)  15 parameters",
    ]


def test_a_deep_copy_shares_nothing(rng):
    model = Model(rng)
    twin = copy.deepcopy(model)
    assert names(twin) == names(model)
    twin.h[0].fc.weight.assign_(np.zeros((3, 4)))
    assert model.h[0].fc.weight.data.any()
    twin.extra = tl.tensor([1.0], requires_grad=True)
    assert "extra" not in names(model)


def test_a_module_without_forward_says_so():
    with pytest.raises(NotImplementedError, match="Module defines no forward"):
        nn.Module()(1)


def test_sequential_applies_in_order_and_indexes(rng):
    model = nn.Sequential(nn.Linear(3, 4, rng=rng), tl.relu, nn.Linear(4, 2, rng=rng))
    assert names(model) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    x = rng.normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_array_equal(model(x).data, model[2](tl.relu(model[0](x))).data)
    assert len(model) == 3
    assert model[-1] is model[2]
    with pytest.raises(IndexError, match="layer 3"):
        model[3]
