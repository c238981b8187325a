"""Instructions that Python has no words for, each beside the plain Python that the simulator runs in its place.

    load4, store4              four neighbours in one access of 16 bytes (ld.v4.f32, st.v4.f32)
    shuffle_xor                a number from another lane of the warp, past memory (shfl.sync.bfly)
    warp_sum, warp_max         of the numbers of all lanes
    exp, log                   correct to 1 or 2 units in the last place
    exp2, reciprocal, rsqrt    one instruction of the special function unit, within 2 units in the last place
    to_tf32, to_bf16x2         float32 rounded to 10 bits of mantissa, or two of them to 7 bits, packed in an integer
    mma_tf32, mma_bf16         a warp's product of small matrices on the tensor cores (mma.sync)

A warp is 32 threads that run in step, its *lanes*. All of them must take part in `shuffle_xor` and in the products.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyllm.kernels.cuda.compile import SIMULATED, cuda, inline

WARP = 32
ALL_LANES = 0xFFFFFFFF

if SIMULATED:
    from tinyllm.kernels.cuda.simulator import exchange, lane

    def load4(array: Any, index: Any) -> tuple[Any, Any, Any, Any]:
        """The elements at `index` and the three after it in its row."""
        return array.load4(index)

    def store4(array: Any, index: Any, a: Any, b: Any, c: Any, d: Any) -> None:
        """Put four numbers at `index` and the three places after it in its row."""
        array.store4(index, (a, b, c, d))

    def shuffle_xor(value: Any, lane_mask: int) -> Any:
        """The `value` of the lane whose number differs from this one's in the bits of `lane_mask`."""
        return exchange(value)[lane() ^ lane_mask]

    def warp_sum(value: Any) -> Any:
        """Sum over the warp, the same in each lane."""

        def total(lanes: list[Any]) -> Any:
            for i in range(5):  # as lanes add them up, but with one meeting instead of five
                lanes = [lanes[k] + lanes[k ^ 1 << i] for k in range(WARP)]
            return lanes[0]

        return exchange(value, total)

    def warp_max(value: Any) -> Any:
        """Largest of the warp, in each lane."""
        return exchange(value, max)

    def _ieee(function: Any) -> Any:
        """A function of float32 that gives infinities, as hardware does, where Python's raises."""
        return lambda x: function(np.float32(x))

    exp: Any = _ieee(np.exp)
    log: Any = _ieee(np.log)

    def exp2(x: Any) -> Any:
        """2^x."""
        return np.float32(np.exp2(x))

    def reciprocal(x: Any) -> Any:
        """1 / x."""
        return np.float32(1) / np.float32(x)

    def rsqrt(x: Any) -> Any:
        """1 / sqrt(x)."""
        return np.float32(1 / np.sqrt(np.float64(x)))

    def to_tf32(x: Any) -> Any:
        """`x` rounded to the 10 bits of mantissa that tensor cores read, ties away from zero, as its bits."""
        return np.int32((np.float32(x).view(np.int32) + 0x1000) & ~0x1FFF)

    def to_bf16x2(low: Any, high: Any) -> Any:
        """Two numbers rounded to bfloat16, ties to even, in the halves of an integer."""
        halves = []
        for x in (low, high):
            bits = int(np.float32(x).view(np.uint32))
            halves.append((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 & 0xFFFF)
        return np.uint32(halves[0] | halves[1] << 16).view(np.int32)

    def mma_tf32(a: Any, b: Any, c: Any) -> tuple[Any, Any, Any, Any]:
        """The lane's four elements of ``A B + C``, A (16, 8), B (8, 8); the comment below says which."""

        def product(lanes: list[Any]) -> np.ndarray:
            left, right = np.empty((16, 8), np.int32), np.empty((8, 8), np.int32)
            for i in range(WARP):
                g, t = divmod(i, 4)
                (left[g, t], left[g + 8, t], left[g, t + 4], left[g + 8, t + 4]), (right[t, g], right[t + 4, g]) = (
                    lanes[i]
                )
            return left.view(np.float32).astype(float) @ right.view(np.float32)

        return _own_part(exchange((a, b), product), c)

    def mma_bf16(a: Any, b: Any, c: Any) -> tuple[Any, Any, Any, Any]:
        """The lane's four elements of ``A B + C``, A (16, 16), B (16, 8), packed in pairs along the sum."""

        def product(lanes: list[Any]) -> np.ndarray:
            left, right = np.empty((16, 8), np.int32), np.empty((8, 8), np.int32)  # the right one transposed
            for i in range(WARP):
                g, t = divmod(i, 4)
                (left[g, t], left[g + 8, t], left[g, t + 4], left[g + 8, t + 4]), (right[g, t], right[g, t + 4]) = (
                    lanes[i]
                )
            return _pairs(left) @ _pairs(right).T

        return _own_part(exchange((a, b), product), c)

    def _pairs(packed: np.ndarray) -> np.ndarray:
        """Two bfloat16 numbers from each integer, the low half first: the upper halves of float32 numbers."""
        return (packed.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32).astype(float)

    def _own_part(product: np.ndarray, c: Any) -> tuple[Any, Any, Any, Any]:
        g, t = divmod(lane(), 4)
        own = (product[g, 2 * t], product[g, 2 * t + 1], product[g + 8, 2 * t], product[g + 8, 2 * t + 1])
        return tuple(np.float32(p + z) for p, z in zip(own, c, strict=True))  # type: ignore[return-value]

else:
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    def _vector_pointer(context: Any, builder: Any, array_type: Any, array: Any, index_type: Any, index: Any) -> Any:
        """The address of an element as that of a vector of four; indices are not negative."""
        many = isinstance(index_type, types.BaseTuple)
        indices = cgutils.unpack_tuple(builder, index, len(index_type)) if many else [index]
        kinds = index_type.types if many else [index_type]
        indices = [context.cast(builder, i, kind, types.intp) for i, kind in zip(indices, kinds, strict=True)]
        data = context.make_array(array_type)(context, builder, array)
        pointer = cgutils.get_item_pointer(context, builder, array_type, data, indices, wraparound=False)
        return builder.bitcast(pointer, ir.VectorType(ir.FloatType(), 4).as_pointer(pointer.type.addrspace))

    @intrinsic
    def load4(typingctx: Any, array: Any, index: Any) -> Any:
        """The elements of a float32 array at `index` and the three after it in its row."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = _vector_pointer(context, builder, signature.args[0], args[0], signature.args[1], args[1])
            vector = builder.load(pointer, align=16)
            parts = [builder.extract_element(vector, ir.IntType(32)(k)) for k in range(4)]
            return context.make_tuple(builder, signature.return_type, parts)

        return types.UniTuple(types.float32, 4)(array, index), codegen

    @intrinsic
    def store4(typingctx: Any, array: Any, index: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
        """Put four float32 numbers at `index` and the three places after it in its row."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = _vector_pointer(context, builder, signature.args[0], args[0], signature.args[1], args[1])
            vector = ir.Constant(ir.VectorType(ir.FloatType(), 4), ir.Undefined)
            for k, value in enumerate(args[2:]):
                vector = builder.insert_element(vector, value, ir.IntType(32)(k))
            builder.store(vector, pointer, align=16)
            return context.get_dummy_value()

        f = types.float32
        return types.none(array, index, f, f, f, f), codegen

    @inline
    def shuffle_xor(value, lane_mask):
        """The `value` of the lane whose number differs from this one's in the bits of `lane_mask`."""
        return cuda.shfl_xor_sync(ALL_LANES, value, lane_mask)

    @inline
    def warp_sum(value):
        """Sum over the warp, the same in each lane: five exchanges, each with a lane twice as far away."""
        for i in range(5):
            value += shuffle_xor(value, 1 << i)
        return value

    @inline
    def warp_max(value):
        """Largest of the warp, in each lane; NaN may be overlooked."""
        for i in range(5):
            value = max(value, shuffle_xor(value, 1 << i))
        return value

    exp, log = math.exp, math.log

    def _instruction(template: str, constraints: str, result: Any, *arguments: Any) -> Any:
        """The type and the code of one PTX instruction on scalars."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            function = ir.FunctionType(context.get_value_type(result), [context.get_value_type(t) for t in arguments])
            return builder.call(ir.InlineAsm(function, template, constraints), args)

        return result(*arguments), codegen

    f32, i32 = types.float32, types.int32

    @intrinsic
    def exp2(typingctx: Any, x: Any) -> Any:
        """2^x."""
        return _instruction("ex2.approx.ftz.f32 $0, $1;", "=f,f", f32, f32)

    @intrinsic
    def reciprocal(typingctx: Any, x: Any) -> Any:
        """1 / x."""
        return _instruction("rcp.approx.ftz.f32 $0, $1;", "=f,f", f32, f32)

    @intrinsic
    def rsqrt(typingctx: Any, x: Any) -> Any:
        """1 / sqrt(x)."""
        return _instruction("rsqrt.approx.ftz.f32 $0, $1;", "=f,f", f32, f32)

    @intrinsic
    def to_tf32(typingctx: Any, x: Any) -> Any:
        """`x` rounded to the 10 bits of mantissa that tensor cores read, ties away from zero, as its bits."""
        return _instruction("cvt.rna.tf32.f32 $0, $1;", "=r,f", i32, f32)

    @intrinsic
    def to_bf16x2(typingctx: Any, low: Any, high: Any) -> Any:
        """Two numbers rounded to bfloat16, ties to even, in the halves of an integer."""
        return _instruction("cvt.rn.bf16x2.f32 $0, $2, $1;", "=r,f,f", i32, f32, f32)

    def _product(instruction: str) -> Any:
        """The type and the code of a warp's product: fragments a (4), b (2), c (4) to four sums."""
        four = types.UniTuple(f32, 4)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            numbers = [
                x for part, n in zip(args, (4, 2, 4), strict=True) for x in cgutils.unpack_tuple(builder, part, n)
            ]
            f = ir.FloatType()
            function = ir.FunctionType(ir.LiteralStructType([f] * 4), [ir.IntType(32)] * 6 + [f] * 4)
            template = f"{instruction} {{$0,$1,$2,$3}}, {{$4,$5,$6,$7}}, {{$8,$9}}, {{$10,$11,$12,$13}};"
            constraints = ",".join(["=f"] * 4 + ["r"] * 6 + ["f"] * 4)
            sums = builder.call(ir.InlineAsm(function, template, constraints, side_effect=True), numbers)
            return context.make_tuple(builder, four, [builder.extract_value(sums, k) for k in range(4)])

        return four(types.UniTuple(i32, 4), types.UniTuple(i32, 2), four), codegen

    @intrinsic
    def mma_tf32(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
        """The lane's four elements of ``A B + C``, A (16, 8), B (8, 8), of numbers rounded by `to_tf32`.

        With g, t = divmod(lane, 4), a lane holds of A the elements (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4), of B
        (t, g), (t + 4, g), and of C and of the result (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
        """
        return _product("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32")

    @intrinsic
    def mma_bf16(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
        """The lane's four elements of ``A B + C``, A (16, 16), B (16, 8), packed in pairs along the sum.

        A lane holds of A the pairs that begin at (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8), of B those at
        (2t, g), (2t + 8, g), and of C and of the result what it holds with `mma_tf32`.
        """
        return _product("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32")
