"""Trajectories equal those of torch.optim to 1e-10 in float64, for every combination of options."""

import itertools

import numpy as np
import pytest

import tinyllm as tl
from tinyllm import optim

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch", reason="PyTorch is not installed")

STEPS = 60


def combinations(**options):
    return [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]


SGD = [
    c
    for c in combinations(
        momentum=[0, 0.9], dampening=[0, 0.4], weight_decay=[0, 0.1], nesterov=[False, True], lr=[0.03]
    )
    if not c["nesterov"] or (c["momentum"] and not c["dampening"])
]
ADAM = combinations(
    lr=[1e-3, 0.05], betas=[(0.9, 0.999), (0.5, 0.6), (0.0, 0.0)], eps=[1e-8, 1e-2], weight_decay=[0, 0.1]
)
ADAGRAD = combinations(
    lr=[0.1], lr_decay=[0, 0.3], weight_decay=[0, 0.1], initial_accumulator_value=[0, 0.5], eps=[1e-10, 1e-2]
)
RMSPROP = combinations(
    lr=[0.01], alpha=[0.99, 0.0], eps=[1e-8, 1e-2], weight_decay=[0, 0.1], momentum=[0, 0.6], centered=[False]
) + combinations(lr=[0.01], alpha=[0.9], eps=[1e-2], weight_decay=[0, 0.1], momentum=[0, 0.6], centered=[True])


@pytest.mark.parametrize(
    ("name", "options"),
    [("SGD", c) for c in SGD]
    + [(name, c) for name in ("Adam", "AdamW") for c in ADAM]
    + [("Adagrad", c) for c in ADAGRAD]
    + [("RMSprop", c) for c in RMSPROP],
    ids=str,
)
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_trajectory(name, options, backend, rng):
    start = [rng.normal(size=shape) for shape in ((3, 4), (5,), ())]
    target = [rng.normal(size=s.shape) for s in start]
    ours = [tl.tensor(s, requires_grad=True) for s in start]
    theirs = [torch.tensor(s, requires_grad=True) for s in start]
    groups = [{"lr": options["lr"]}, {"lr": options["lr"] / 3}]
    a = getattr(optim, name)([{"params": ours[:2], **groups[0]}, {"params": ours[2:], **groups[1]}], **options)
    b = getattr(torch.optim, name)(
        [{"params": theirs[:2], **groups[0]}, {"params": theirs[2:], **groups[1]}], **options
    )
    for t in range(STEPS):
        rate = options["lr"] * (1 - t / STEPS)
        a.param_groups[0]["lr"] = b.param_groups[0]["lr"] = rate
        a.zero_grad()
        b.zero_grad()
        left_out = t % 3  # one parameter without a gradient in each step
        with tl.backend(backend):
            for i, (p, q, goal) in enumerate(zip(ours, theirs, target, strict=True)):
                if i != left_out:
                    (tl.sin(p) * (p - goal) ** 2).sum().backward()
                    (torch.sin(q) * (q - torch.tensor(goal)) ** 2).sum().backward()
            a.step()
            b.step()
        for p, q in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=0, atol=1e-10)
    assert all(np.abs(p.data - s).max() > 1e-3 for p, s in zip(ours, start, strict=True))


@pytest.mark.parametrize(
    ("name", "options"),
    [("SGD", SGD[-1]), ("Adam", ADAM[0]), ("AdamW", ADAM[1]), ("Adagrad", ADAGRAD[-1]), ("RMSprop", RMSPROP[-1])],
    ids=str,
)
def test_twenty_steps_are_equal_to_the_last_digits(name, options, rng):
    start, grads = rng.normal(size=(4, 5)), rng.normal(size=(20, 4, 5))
    p, q = tl.tensor(start, requires_grad=True), torch.tensor(start, requires_grad=True)
    a, b = getattr(optim, name)([p], **options), getattr(torch.optim, name)([q], **options)
    for g in grads:
        p.grad, q.grad = tl.tensor(g), torch.tensor(g)
        a.step()
        b.step()
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999])
def test_averages(decay, rng):
    start = rng.normal(size=(3, 4))
    p, module = tl.tensor(start, requires_grad=True), torch.nn.Linear(4, 3, bias=False, dtype=torch.float64)
    ours = optim.EMA([p], decay)
    theirs = torch.optim.swa_utils.AveragedModel(module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay))
    for _ in range(20):
        value = rng.normal(size=(3, 4))
        p.assign_(value)
        with torch.no_grad():
            module.weight.copy_(torch.tensor(value))
        ours.update()
        theirs.update_parameters(module)
        expected = theirs.module.weight.detach().numpy()
        np.testing.assert_allclose(ours.state_dict()["average.0"], expected, rtol=0, atol=1e-12)
