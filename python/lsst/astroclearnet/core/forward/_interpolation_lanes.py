# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Vector instructions that interpolate several images at one pixel.

The loops of the compiler do not become vector instructions where their count
is as small as that of the taps, so these are written out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ._interpolation_profile import LANES, WIDTH

BLOCK = 64
"""Number of pixels in an array of weights."""

# Its type counts the context of the compiler among the arguments of a call.
_instruction: Any = intrinsic

type _Generator = Callable[[Any, Any, Any, Any], Any]

_INDEX = ir.IntType(64)


class _Writer:
    """Writes the instructions of a function."""

    def __init__(self, lanes: int, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self._builder = builder
        self._number = lanes
        self._arrays = [
            context.make_array(kind)(context, builder, arg).data if isinstance(kind, types.Array) else None
            for kind, arg in zip(signature.args, args, strict=True)
        ]
        self.type = ir.VectorType(ir.FloatType(), lanes)
        self._multiply_add = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(self.type, [self.type] * 3), f"llvm.fmuladd.v{lanes}f32"
        )

    def lanes(self, array: int, index: Any) -> Any:
        """Return the pointer to the lanes that start at an element.

        Parameters
        ----------
        array
            Number of an argument that is an array.
        index
            Index of the element.

        Returns
        -------
        pointer : `llvmlite.ir.Value`
            The pointer.
        """
        pointer = self._builder.gep(self._arrays[array], [index])
        return self._builder.bitcast(pointer, self.type.as_pointer())

    def load(self, pointer: Any) -> Any:
        """Load lanes.

        Parameters
        ----------
        pointer
            Where they are.

        Returns
        -------
        value : `llvmlite.ir.Value`
            The lanes.
        """
        value = self._builder.load(pointer)
        value.align = 4
        return value

    def store(self, value: Any, pointer: Any) -> None:
        """Store lanes.

        Parameters
        ----------
        value
            The lanes.
        pointer
            Where to.
        """
        self._builder.store(value, pointer).align = 4

    def spread(self, scalar: Any) -> Any:
        """Return a number in all lanes.

        Parameters
        ----------
        scalar
            The number.

        Returns
        -------
        value : `llvmlite.ir.Value`
            The lanes.
        """
        nothing = ir.Constant(self.type, ir.Undefined)
        first = self._builder.insert_element(nothing, scalar, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self._number), [0] * self._number)
        return self._builder.shuffle_vector(first, nothing, zeros)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """Return a b + c.

        Parameters
        ----------
        a
            Lanes.
        b
            Lanes.
        c
            Lanes.

        Returns
        -------
        value : `llvmlite.ir.Value`
            Lanes, fused where the machine can.
        """
        return self._builder.call(self._multiply_add, [a, b, c])

    def weight(self, array: int, tap: int, pixel: Any) -> Any:
        """Return the weight of a tap of a pixel, in all lanes.

        Parameters
        ----------
        array
            Number of the argument that holds weights, (WIDTH, BLOCK).
        tap
            Number of the tap.
        pixel
            Number of the pixel in the block.

        Returns
        -------
        value : `llvmlite.ir.Value`
            The lanes.
        """
        index = self._builder.add(pixel, ir.Constant(_INDEX, tap * BLOCK))
        return self.spread(self._builder.load(self._builder.gep(self._arrays[array], [index])))

    def tap(self, array: int, start: Any, stride: Any, row: int, column: int) -> Any:
        """Return the pointer to the lanes of a tap.

        Parameters
        ----------
        array
            Number of the argument that holds images.
        start
            Index of the first tap.
        stride
            What the index rises by from row to row.
        row
            Row of the tap.
        column
            Column of the tap.

        Returns
        -------
        pointer : `llvmlite.ir.Value`
            The pointer.
        """
        index = self._builder.add(start, self._builder.mul(stride, ir.Constant(_INDEX, row)))
        return self.lanes(array, self._builder.add(index, ir.Constant(_INDEX, column * self._number)))


def _gather(lanes: int) -> _Generator:
    """Return what writes the interpolation of images at a pixel."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, start, stride, _, _, pixel, factor, _ = args
        write = _Writer(lanes, context, builder, signature, args)
        columns = [write.weight(4, j, pixel) for j in range(WIDTH)]
        total = ir.Constant(write.type, [0.0] * lanes)
        for i in range(WIDTH):
            row = ir.Constant(write.type, [0.0] * lanes)
            for j, column in enumerate(columns):
                row = write.multiply_add(column, write.load(write.tap(0, start, stride, i, j)), row)
            total = write.multiply_add(write.weight(3, i, pixel), row, total)
        write.store(builder.fmul(total, write.spread(factor)), write.lanes(7, ir.Constant(_INDEX, 0)))
        return context.get_dummy_value()

    return generate


def _scatter(lanes: int) -> _Generator:
    """Return what writes the adjoint of the interpolation at a pixel."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, start, stride, _, _, pixel, _ = args
        write = _Writer(lanes, context, builder, signature, args)
        values = write.load(write.lanes(6, ir.Constant(_INDEX, 0)))
        shares = [builder.fmul(values, write.weight(4, j, pixel)) for j in range(WIDTH)]
        for i in range(WIDTH):
            weight = write.weight(3, i, pixel)
            for j, share in enumerate(shares):
                place = write.tap(0, start, stride, i, j)
                write.store(write.multiply_add(weight, share, write.load(place)), place)
        return context.get_dummy_value()

    return generate


@_instruction
def gather_one(
    _: Any, image: Any, start: Any, stride: Any, wy: Any, wx: Any, pixel: Any, factor: Any, values: Any
) -> tuple[Any, _Generator]:
    """Interpolate one image at a pixel.

    Parameters
    ----------
    _
        Context of the compiler.
    image
        Flat image, float32.
    start
        Index of the first tap, int64.
    stride
        What the index rises by from row to row, int64.
    wy
        Shape (WIDTH, BLOCK), float32, weights along rows.
    wx
        Shape (WIDTH, BLOCK), float32, weights along columns.
    pixel
        Number of the pixel in the block, int64.
    factor
        What the value is multiplied with, float32.
    values
        Shape (1,), float32, filled with the value.

    Returns
    -------
    signature : `numba.core.typing.Signature`
        Types of the arguments.
    generate : `collections.abc.Callable`
        Writes the instructions.
    """
    return types.void(image, start, stride, wy, wx, pixel, factor, values), _gather(1)


@_instruction
def gather_lanes(
    _: Any, image: Any, start: Any, stride: Any, wy: Any, wx: Any, pixel: Any, factor: Any, values: Any
) -> tuple[Any, _Generator]:
    """Interpolate `LANES` images at a pixel.

    Parameters
    ----------
    _
        Context of the compiler.
    image
        Flat images, float32, their values side by side.
    start
        Index of the first tap, int64.
    stride
        What the index rises by from row to row, int64.
    wy
        Shape (WIDTH, BLOCK), float32, weights along rows.
    wx
        Shape (WIDTH, BLOCK), float32, weights along columns.
    pixel
        Number of the pixel in the block, int64.
    factor
        What the values are multiplied with, float32.
    values
        Shape (LANES,), float32, filled with the values.

    Returns
    -------
    signature : `numba.core.typing.Signature`
        Types of the arguments.
    generate : `collections.abc.Callable`
        Writes the instructions.
    """
    return types.void(image, start, stride, wy, wx, pixel, factor, values), _gather(LANES)


@_instruction
def scatter_one(
    _: Any, image: Any, start: Any, stride: Any, wy: Any, wx: Any, pixel: Any, values: Any
) -> tuple[Any, _Generator]:
    """Add the value of a pixel to its taps: the adjoint of `gather_one`.

    Parameters
    ----------
    _
        Context of the compiler.
    image
        Flat image, float32.
    start
        Index of the first tap, int64.
    stride
        What the index rises by from row to row, int64.
    wy
        Shape (WIDTH, BLOCK), float32, weights along rows.
    wx
        Shape (WIDTH, BLOCK), float32, weights along columns.
    pixel
        Number of the pixel in the block, int64.
    values
        Shape (1,), float32, the value.

    Returns
    -------
    signature : `numba.core.typing.Signature`
        Types of the arguments.
    generate : `collections.abc.Callable`
        Writes the instructions.
    """
    return types.void(image, start, stride, wy, wx, pixel, values), _scatter(1)


@_instruction
def scatter_lanes(
    _: Any, image: Any, start: Any, stride: Any, wy: Any, wx: Any, pixel: Any, values: Any
) -> tuple[Any, _Generator]:
    """Add the values of a pixel to its taps: the adjoint of `gather_lanes`.

    Parameters
    ----------
    _
        Context of the compiler.
    image
        Flat images, float32, their values side by side.
    start
        Index of the first tap, int64.
    stride
        What the index rises by from row to row, int64.
    wy
        Shape (WIDTH, BLOCK), float32, weights along rows.
    wx
        Shape (WIDTH, BLOCK), float32, weights along columns.
    pixel
        Number of the pixel in the block, int64.
    values
        Shape (LANES,), float32, the values.

    Returns
    -------
    signature : `numba.core.typing.Signature`
        Types of the arguments.
    generate : `collections.abc.Callable`
        Writes the instructions.
    """
    return types.void(image, start, stride, wy, wx, pixel, values), _scatter(LANES)
