"""PyTorch functions through the page's adapter."""

import pytest

from tinyllm.testing import GradCheckError, gradcheck

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch", reason="checks PyTorch functions")


def from_torch(f):
    def forward(*arrays):
        with torch.no_grad():
            return f(*(torch.from_numpy(a) for a in arrays)).numpy()

    def backward(g, *arrays):
        leaves = [torch.from_numpy(a).requires_grad_(a.dtype.kind == "f") for a in arrays]
        f(*leaves).backward(torch.from_numpy(g))
        return tuple(None if x.grad is None else x.grad.numpy().copy() for x in leaves)

    return forward, backward


@pytest.mark.parametrize(
    "name", ["softmax", "log_softmax", "gelu", "relu", "silu", "softplus", "layer_norm", "logsumexp", "embedding"]
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_torch_passes(name, dtype, rng):
    x = rng.normal(size=(5, 6)).astype(dtype)
    functional = torch.nn.functional
    functions = {
        "softmax": lambda x: functional.softmax(x, -1),
        "log_softmax": lambda x: functional.log_softmax(x, -1),
        "layer_norm": lambda x: functional.layer_norm(x, (6,)),
        "logsumexp": lambda x: torch.logsumexp(x, -1),
        "embedding": lambda x: functional.embedding(torch.tensor([0, 2, 2, 4]), x),
    }
    forward, backward = from_torch(functions.get(name) or getattr(functional, name))
    gradcheck(forward, x, vjp=backward)


def test_a_wrong_custom_function_is_rejected(rng):
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.exp()

        @staticmethod
        def backward(ctx, g):
            return -g * ctx.saved_tensors[0].exp()

    forward, backward = from_torch(Wrong.apply)
    with pytest.raises(GradCheckError, match="the sign is wrong"):
        gradcheck(forward, rng.normal(size=(2, 3)), vjp=backward)
