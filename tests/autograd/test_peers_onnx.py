"""Forward values against the reference implementation of ONNX, which is written in NumPy by other people."""

import numpy as np
import pytest

import tinyllm as tl

pytestmark = pytest.mark.peers
onnx = pytest.importorskip("onnx", reason="the comparison needs the onnx package")

RNG = np.random.default_rng(5)
X = RNG.normal(size=(3, 4, 5))
POSITIVE = RNG.uniform(0.5, 2.0, size=(3, 4, 5))
IDS = np.array([[0, 2, 2], [1, 0, 2]])
AXIS1 = np.array([1])

# our result, ONNX's operator, its inputs, its attributes
CASES = {
    "abs": (tl.abs(X), "Abs", [X], {}),
    "add": (tl.add(X, X[0]), "Add", [X, X[0]], {}),
    "cast": (tl.astype(X, "float32"), "Cast", [X], {"to": 1}),
    "ceil": (tl.ceil(X), "Ceil", [X], {}),
    "clip": (tl.clip(X, -0.5, 0.5), "Clip", [X, np.array(-0.5), np.array(0.5)], {}),
    "concatenate": (tl.concatenate([X, X], axis=1), "Concat", [X, X], {"axis": 1}),
    "cos": (tl.cos(X), "Cos", [X], {}),
    "cumsum": (tl.cumsum(X, axis=1), "CumSum", [X, np.array(1)], {}),
    "divide": (tl.divide(X, POSITIVE), "Div", [X, POSITIVE], {}),
    "einsum": (tl.einsum("abc,abd->acd", X, X), "Einsum", [X, X], {"equation": "abc,abd->acd"}),
    "elu": (tl.elu(X, alpha=0.7), "Elu", [X], {"alpha": 0.7}),
    "embedding": (tl.embedding(IDS, X[0]), "Gather", [X[0], IDS], {"axis": 0}),
    "erf": (tl.erf(X), "Erf", [X], {}),
    "exp": (tl.exp(X), "Exp", [X], {}),
    "floor": (tl.floor(X), "Floor", [X], {}),
    "gelu": (tl.gelu(X), "Gelu", [X], {}),
    "gelu, tanh": (tl.gelu(X, approximate="tanh"), "Gelu", [X], {"approximate": "tanh"}),
    "layer_norm": (
        tl.layer_norm(X, 5, X[0, 0], X[0, 1], eps=1e-3),
        "LayerNormalization",
        [X, X[0, 0], X[0, 1]],
        {"epsilon": 1e-3},
    ),
    "leaky_relu": (tl.leaky_relu(X, 0.2), "LeakyRelu", [X], {"alpha": 0.2}),
    "linear": (tl.linear(X[0], X[1], X[2, :, 0]), "Gemm", [X[0], X[1], X[2, :, 0]], {"transB": 1}),
    "log": (tl.log(POSITIVE), "Log", [POSITIVE], {}),
    "log_softmax": (tl.log_softmax(X, axis=1), "LogSoftmax", [X], {"axis": 1}),
    "logsumexp": (tl.logsumexp(X, axis=1, keepdims=True), "ReduceLogSumExp", [X, AXIS1], {}),
    "matmul": (tl.matmul(X, X.swapaxes(1, 2)), "MatMul", [X, X.swapaxes(1, 2)], {}),
    "max": (tl.max(X, axis=1, keepdims=True), "ReduceMax", [X, AXIS1], {}),
    "maximum": (tl.maximum(X, X[0]), "Max", [X, X[0]], {}),
    "mean": (tl.mean(X, axis=1, keepdims=True), "ReduceMean", [X, AXIS1], {}),
    "min": (tl.min(X, axis=1, keepdims=True), "ReduceMin", [X, AXIS1], {}),
    "minimum": (tl.minimum(X, X[0]), "Min", [X, X[0]], {}),
    "multiply": (tl.multiply(X, X[0]), "Mul", [X, X[0]], {}),
    "negative": (tl.negative(X), "Neg", [X], {}),
    "norm": (tl.norm(X, axis=1, keepdims=True), "ReduceL2", [X, AXIS1], {}),
    "norm, 1": (tl.norm(X, ord=1, axis=1, keepdims=True), "ReduceL1", [X, AXIS1], {}),
    "power": (tl.power(POSITIVE, X), "Pow", [POSITIVE, X], {}),
    "prod": (tl.prod(X, axis=1, keepdims=True), "ReduceProd", [X, AXIS1], {}),
    "relu": (tl.relu(X), "Relu", [X], {}),
    "reshape": (tl.reshape(X, (5, 12)), "Reshape", [X, np.array([5, 12])], {}),
    "round": (tl.round(X), "Round", [X], {}),
    "sigmoid": (tl.sigmoid(X), "Sigmoid", [X], {}),
    "sign": (tl.sign(X), "Sign", [X], {}),
    "sin": (tl.sin(X), "Sin", [X], {}),
    "softmax": (tl.softmax(X, axis=1), "Softmax", [X], {"axis": 1}),
    "softplus": (tl.softplus(X), "Softplus", [X], {}),
    "sqrt": (tl.sqrt(POSITIVE), "Sqrt", [POSITIVE], {}),
    "subtract": (tl.subtract(X, X[0]), "Sub", [X, X[0]], {}),
    "sum": (tl.sum(X, axis=1, keepdims=True), "ReduceSum", [X, AXIS1], {}),
    "take_along_axis": (tl.take_along_axis(X[0, :2], IDS, axis=1), "GatherElements", [X[0, :2], IDS], {"axis": 1}),
    "tanh": (tl.tanh(X), "Tanh", [X], {}),
    "tile": (tl.tile(X, (1, 2, 1)), "Tile", [X, np.array([1, 2, 1])], {}),
    "topk": (tl.topk(X, 2)[0], "TopK", [X, np.array([2])], {}),
    "transpose": (tl.transpose(X, (2, 0, 1)), "Transpose", [X], {"perm": [2, 0, 1]}),
    "tril": (tl.tril(X, 1), "Trilu", [X, np.array(1)], {"upper": 0}),
    "triu": (tl.triu(X, 1), "Trilu", [X, np.array(1)], {"upper": 1}),
    "where": (tl.where(X > 0, X, X[0]), "Where", [X > 0, X, X[0]], {}),
}


@pytest.mark.parametrize("name", CASES)
def test_forward_equals_the_onnx_reference(name: str) -> None:
    from onnx.reference import ReferenceEvaluator

    ours, operator, inputs, attributes = CASES[name]
    names = [f"x{i}" for i in range(len(inputs))]
    outputs = ["y", "indices"] if operator == "TopK" else ["y"]
    node = onnx.helper.make_node(operator, names, outputs, **attributes)
    kinds = [onnx.helper.np_dtype_to_tensor_dtype(x.dtype) for x in inputs]
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [onnx.helper.make_tensor_value_info(n, k, None) for n, k in zip(names, kinds, strict=True)],
        [onnx.helper.make_tensor_value_info(o, 0, None) for o in outputs],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])
    theirs = ReferenceEvaluator(model).run(None, dict(zip(names, inputs, strict=True)))[0]
    # attributes are stored in float32, and ONNX's reference computes erf in float32: both limit the agreement
    rtol = 2e-6 if operator in ("Erf", "Gelu") else 1e-7 if attributes else 1e-12
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=rtol, atol=1e-14 if rtol < 1e-6 else 1e-7)
