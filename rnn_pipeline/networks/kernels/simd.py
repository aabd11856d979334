"""Vectors of float32 in Numba, and the one matrix micro-kernel that everything else is made of.

Numba vectorises plain loops too timidly for small matrices: it reaches a third of what the explicit
vectors here do. A :class:`VectorType` lowers to LLVM's ``<LANES x float>``, which any processor
runs; only the number of lanes and the size of the register tile are chosen for the one at hand.

Everything takes places in one flat float32 array ``work``, counted in elements; an array of more
dimensions is a place and its strides. Nothing here checks bounds.

Equal inputs give equal bits wherever they lie: each element of a product is one chain of
multiply-adds over k from first to last, whichever tile computes it, and nothing is summed across
lanes but in one fixed order.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core.registry import cpu_target
from numba.extending import (
    intrinsic,
    lower_builtin,
    models,
    register_jitable,
    register_model,
    type_callable,
)
from numba.np.arrayobj import make_array

from rnn_pipeline.networks.randomness import GOLDEN_32

FEATURES = set(cpu_target.target_context.codegen().magic_tuple()[2].split(","))
"""Of the processor that Numba compiles for: ``+avx2`` and so on."""
LANES = 16 if "+avx512f" in FEATURES else 8 if "+avx" in FEATURES else 4
"""float32 values in one register."""
TILE_ROWS = (6, 4, 2, 1)
"""Heights of a register tile, tallest first."""
TILE_VECTORS = 2 if FEATURES & {"+sse2"} and "+avx512f" not in FEATURES else 4
"""Widest register tile: 6 x 4 accumulators fill 32 registers, 6 x 2 fill the 16 of AVX and SSE."""

FLOAT = ir.FloatType()
INDEX = ir.IntType(64)
LLVM_VECTOR = ir.VectorType(FLOAT, LANES)


@register_jitable
def padded(n: int) -> int:
    """``n`` rounded up to whole vectors."""
    return -(-n // LANES) * LANES


class VectorType(types.Type):
    """``LANES`` float32 values in a register."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


VECTOR = VectorType()


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: VectorType) -> None:
        super().__init__(manager, numba_type, LLVM_VECTOR)


def _splat(builder: ir.IRBuilder, scalar: ir.Value) -> ir.Value:
    """``LANES`` lanes equal to ``scalar``."""
    undefined = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
    return builder.shuffle_vector(first, undefined, zeros)


def _define_operator(function: Callable[..., Any], emit: str) -> None:
    """Let ``function`` (an operator) take vectors, and floats beside a vector."""

    @type_callable(function)
    def typed(context: Any) -> Callable[..., types.Type | None]:
        def typer(x: types.Type, y: types.Type) -> types.Type | None:
            pair = (x, y)
            if VECTOR in pair and all(t is VECTOR or isinstance(t, types.Float) for t in pair):
                return VECTOR
            return None

        return typer

    def lower(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        x, y = (
            value
            if numba_type is VECTOR
            else _splat(builder, context.cast(builder, value, numba_type, types.float32))
            for numba_type, value in zip(signature.args, args, strict=True)
        )
        return getattr(builder, emit)(x, y)

    for left, right in ((VECTOR, VECTOR), (VECTOR, types.Float), (types.Float, VECTOR)):
        lower_builtin(function, left, right)(lower)


_define_operator(operator.add, "fadd")
_define_operator(operator.sub, "fsub")
_define_operator(operator.mul, "fmul")
_define_operator(operator.truediv, "fdiv")


def _pointer(
    context: Any, builder: ir.IRBuilder, array_type: Any, array: ir.Value, place: ir.Value
) -> ir.Value:
    """The address of element ``place`` of a one-dimensional array."""
    data = make_array(array_type)(context, builder, array).data
    return builder.gep(data, [place])


def _load(builder: ir.IRBuilder, pointer: ir.Value) -> ir.Value:
    return builder.load(builder.bitcast(pointer, LLVM_VECTOR.as_pointer()), align=4)


def _store(builder: ir.IRBuilder, value: ir.Value, pointer: ir.Value) -> None:
    builder.store(value, builder.bitcast(pointer, LLVM_VECTOR.as_pointer()), align=4)


@intrinsic
def load(typing_context: Any, work: Any, place: Any) -> Any:
    """The vector at ``place`` of ``work``."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return _load(builder, _pointer(context, builder, signature.args[0], *args))

    return VECTOR(work, types.intp), codegen


@intrinsic
def store(typing_context: Any, work: Any, place: Any, value: Any) -> Any:
    """Write a vector to ``place`` of ``work``."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        _store(builder, args[2], _pointer(context, builder, signature.args[0], *args[:2]))
        return context.get_dummy_value()

    return types.void(work, types.intp, VECTOR), codegen


@intrinsic
def splat(typing_context: Any, scalar: Any) -> Any:
    """A vector of one value."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return _splat(builder, args[0])

    return VECTOR(types.float32), codegen


@intrinsic
def square_root(typing_context: Any, x: Any) -> Any:
    """The square root of each lane."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        name = f"llvm.sqrt.v{LANES}f32"
        function = builder.module.declare_intrinsic(name, fnty=_function_type(1))
        return builder.call(function, args)

    return VECTOR(VECTOR), codegen


@intrinsic
def total(typing_context: Any, x: Any) -> Any:
    """The sum of the lanes, from first to last."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        result = ir.Constant(FLOAT, 0.0)
        for lane in range(LANES):
            element = builder.extract_element(args[0], ir.Constant(ir.IntType(32), lane))
            result = builder.fadd(result, element)
        return result

    return types.float32(VECTOR), codegen


def _function_type(arity: int) -> ir.FunctionType:
    return ir.FunctionType(LLVM_VECTOR, [LLVM_VECTOR] * arity)


def _multiply_add(builder: ir.IRBuilder, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
    """``x * y + z``: one rounding where the processor has an instruction for it, else two."""
    name = f"llvm.fmuladd.v{LANES}f32"
    function = builder.module.declare_intrinsic(name, fnty=_function_type(3))
    return builder.call(function, [x, y, z])


@intrinsic
def dropout_mask(typing_context: Any, key: Any, index: Any, threshold: Any, kept: Any) -> Any:
    """``kept`` where the bits of elements ``index`` and following reach ``threshold``, else 0.

    The bits are those of :func:`~rnn_pipeline.networks.randomness.bits`, whose products and sums
    modulo 2**32 are here those of 32-bit lanes.
    """

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        key, index, threshold, kept = args
        word, words = ir.IntType(32), ir.VectorType(ir.IntType(32), LANES)

        def splat_word(scalar: ir.Value) -> ir.Value:
            return _splat(builder, builder.trunc(scalar, word))

        def constant(value: int) -> ir.Value:
            return ir.Constant(words, [value] * LANES)

        places = builder.add(splat_word(index), ir.Constant(words, list(range(LANES))))
        h = builder.add(builder.mul(places, constant(GOLDEN_32)), splat_word(key))
        h = builder.xor(h, builder.lshr(h, constant(16)))
        h = builder.mul(h, constant(0x85EBCA6B))
        h = builder.xor(h, builder.lshr(h, constant(13)))
        h = builder.mul(h, constant(0xC2B2AE35))
        h = builder.xor(h, builder.lshr(h, constant(16)))
        # 64 bits: the threshold of a dropout next to 1 is 2**32.
        wide = builder.zext(h, ir.VectorType(INDEX, LANES))
        reached = builder.icmp_unsigned(">=", wide, _splat(builder, threshold))
        return builder.select(reached, _splat(builder, kept), _constant(0.0))

    return VECTOR(types.int64, types.int64, types.int64, types.float32), codegen


# tanh(x) = x P(x^2) / Q(x^2): fitted to the least largest relative error (6e-9 before rounding,
# 3e-7 with float32 coefficients and arithmetic) on [0, 7.9], behind which float32 knows only 1.
TANH_LIMIT = 7.9
TANH_P = (1.0, 0.13452869, 0.00358165561, 2.20671502e-05, 1.54899339e-08)
TANH_Q = (1.0, 0.467861988, 0.0262023853, 0.00034280046, 8.62383894e-07)


def _constant(value: float) -> ir.Value:
    return ir.Constant(LLVM_VECTOR, [float(np.float32(value))] * LANES)


def _tanh(builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
    for comparison, limit in ((">", TANH_LIMIT), ("<", -TANH_LIMIT)):
        # Ordered comparisons: a NaN passes through.
        beyond = builder.fcmp_ordered(comparison, x, _constant(limit))
        x = builder.select(beyond, _constant(limit), x)
    square = builder.fmul(x, x)
    numerator, denominator = _constant(TANH_P[-1]), _constant(TANH_Q[-1])
    for p, q in zip(TANH_P[-2::-1], TANH_Q[-2::-1], strict=True):
        numerator = _multiply_add(builder, numerator, square, _constant(p))
        denominator = _multiply_add(builder, denominator, square, _constant(q))
    return builder.fdiv(builder.fmul(x, numerator), denominator)


@intrinsic
def tanh(typing_context: Any, x: Any) -> Any:
    """The hyperbolic tangent of each lane, within 3e-7 relative."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return _tanh(builder, args[0])

    return VECTOR(VECTOR), codegen


@intrinsic
def sigmoid(typing_context: Any, x: Any) -> Any:
    """The logistic function of each lane, ``(1 + tanh(x / 2)) / 2``, within 2e-7 absolute."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        half = _constant(0.5)
        return _multiply_add(builder, half, _tanh(builder, builder.fmul(half, args[0])), half)

    return VECTOR(VECTOR), codegen


@intrinsic
def _multiply_tile(
    typing_context: Any,
    height: Any,
    width: Any,
    add: Any,
    work: Any,
    c: Any,
    c_row: Any,
    a: Any,
    a_row: Any,
    a_step: Any,
    b: Any,
    b_step: Any,
    n: Any,
) -> Any:
    """One register tile of :func:`multiply`: ``height`` rows and ``width`` vectors of C."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        height, width, add, work, c, c_row, a, a_row, a_step, b, b_step, n = args

        def pointer(place: ir.Value) -> ir.Value:
            return _pointer(context, builder, signature.args[3], work, place)

        def tile(rows: int, vectors: int) -> None:
            lanes = [ir.Constant(INDEX, v * LANES) for v in range(vectors)]
            starts = [builder.mul(c_row, ir.Constant(INDEX, r)) for r in range(rows)]
            places = [
                pointer(builder.add(c, builder.add(start, lane)))
                for start in starts
                for lane in lanes
            ]
            zero = _constant(0.0)
            first = [builder.select(add, _load(builder, place), zero) for place in places]
            a_starts = [
                pointer(builder.add(a, builder.mul(a_row, ir.Constant(INDEX, r))))
                for r in range(rows)
            ]

            before = builder.block
            loop = builder.append_basic_block("k")
            after = builder.append_basic_block("stored")
            builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(INDEX)
            a_place, b_place = builder.phi(INDEX), builder.phi(INDEX)
            sums = [builder.phi(LLVM_VECTOR) for _ in places]
            column = pointer(b_place)
            row_of_b = [_load(builder, builder.gep(column, [lane])) for lane in lanes]
            results = []
            for r in range(rows):
                scalar = _splat(builder, builder.load(builder.gep(a_starts[r], [a_place])))
                for v in range(vectors):
                    total = sums[r * vectors + v]
                    results.append(_multiply_add(builder, scalar, row_of_b[v], total))
            next_k = builder.add(k, ir.Constant(INDEX, 1))
            for phi, start, later in (
                (k, ir.Constant(INDEX, 0), next_k),
                (a_place, ir.Constant(INDEX, 0), builder.add(a_place, a_step)),
                (b_place, b, builder.add(b_place, b_step)),
                *zip(sums, first, results, strict=True),
            ):
                phi.add_incoming(start, before)
                phi.add_incoming(later, loop)
            builder.cbranch(builder.icmp_signed("<", next_k, n), loop, after)
            builder.position_at_end(after)
            for place, result in zip(places, results, strict=True):
                _store(builder, result, place)

        done = builder.append_basic_block("done")
        variant = builder.add(builder.mul(height, ir.Constant(INDEX, 8)), width)
        switch = builder.switch(variant, done)
        for rows in TILE_ROWS:
            for vectors in range(1, TILE_VECTORS + 1):
                block = builder.append_basic_block(f"tile_{rows}x{vectors}")
                switch.add_case(ir.Constant(INDEX, rows * 8 + vectors), block)
                builder.position_at_end(block)
                tile(rows, vectors)
                builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    places = (types.intp,) * 8
    return types.void(types.intp, types.intp, types.boolean, work, *places), codegen


# Compiled for this one signature: Numba would make a variant per combination of literal arguments.
@njit(
    types.void(types.float32[::1], types.boolean, *(types.int64,) * 10),
    cache=True,
    error_model="numpy",
)
def multiply(
    work: np.ndarray,
    add: bool,
    c: int,
    c_row: int,
    n_rows: int,
    n_vectors: int,
    a: int,
    a_row: int,
    a_step: int,
    b: int,
    b_step: int,
    n: int,
) -> None:
    """``C = A B``, or ``C += A B`` where ``add``: the one matrix product of all kernels.

    Args:
        work: holds A, B and C.
        add: to what C holds.
        c: where C (n_rows, n_vectors * LANES) begins; its rows are ``c_row`` apart.
        c_row: see ``c``.
        n_rows: of C and A.
        n_vectors: of a row of C and B.
        a: where A (n_rows, n) begins; its rows are ``a_row`` and its columns ``a_step`` apart.
        a_row: see ``a``.
        a_step: see ``a``.
        b: where B (n, n_vectors * LANES) begins; its rows are ``b_step`` apart.
        b_step: see ``b``.
        n: columns of A, rows of B; at least 1.
    """
    for vector in range(0, n_vectors, TILE_VECTORS):
        width = min(TILE_VECTORS, n_vectors - vector)
        column = vector * LANES
        row = 0
        while row < n_rows:
            height = 1
            for rows in TILE_ROWS:
                if n_rows - row >= rows:
                    height = rows
                    break
            _multiply_tile(
                height,
                width,
                add,
                work,
                c + row * c_row + column,
                c_row,
                a + row * a_row,
                a_row,
                a_step,
                b + column,
                b_step,
                n,
            )
            row += height
