"""One matrix product for compiled loops, in the thread that asks for it.

It is torch's own library's where that exports one (MKL), and SciPy's elsewhere. Importing this imports
numba.
"""

import contextlib
import ctypes
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import llvmlite.binding as llvm
import numba
import scipy.linalg.cython_blas  # noqa: F401  (numba looks its functions up)
import threadpoolctl  # type: ignore[import-untyped]
import torch
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import get_cython_function_address, intrinsic


@numba.cfunc("int32(int32)")
def _nothing(n: Any) -> Any:
    return n


def _addresses() -> tuple[int, int] | None:
    """Of torch's product, and of what sets its threads for the thread that calls."""
    for path in (Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*"):
        library = ctypes.CDLL(str(path))
        names = "sgemm_", "MKL_Set_Num_Threads_Local"
        if all(hasattr(library, name) for name in names):
            sgemm, threads = (ctypes.cast(getattr(library, n), ctypes.c_void_p) for n in names)
            if sgemm.value and threads.value:
                return sgemm.value, threads.value
    return None


_found = _addresses()
# By name: compiled code that is cached holds no address.
llvm.add_symbol(
    "densekit_sgemm",
    _found[0] if _found else get_cython_function_address("scipy.linalg.cython_blas", "sgemm"),
)
llvm.add_symbol("densekit_blas_threads", _found[1] if _found else _nothing.address)
_lock, _inside, _limit = threading.Lock(), 0, cast(Any, None)
_controller: Any = None if _found else threadpoolctl.ThreadpoolController().select(user_api="blas")

blas_threads: Any = types.ExternalFunction("densekit_blas_threads", types.int32(types.int32))
"""Sets the threads of a product in this thread, 0 for the usual number, and returns what there were;
where only SciPy's is there :func:`alone` has to."""


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """SciPy's limit is the whole process': the first sets it, and the last one out lifts it."""
    global _inside, _limit
    with _lock:
        if _inside == 0:
            _limit = _controller.limit(limits=1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _limit.restore_original_limits()


def alone() -> contextlib.AbstractContextManager[Any]:
    """While it is entered, products take one thread each."""
    return _one_thread() if _controller else contextlib.nullcontext()


@intrinsic
def sgemm(
    _: Any, turn_a: Any, turn_b: Any, m: Any, n: Any, k: Any, a: Any, lda: Any, b: Any, ldb: Any,
    beta: Any, c: Any, ldc: Any,
) -> Any:  # fmt: skip
    """C = A B + beta C of matrices by columns, at addresses, as BLAS has it; ``turn`` is 1 to
    transpose."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, byte = ir.IntType(32), ir.IntType(8)
        pointer = byte.as_pointer()

        def place(value: Any) -> Any:
            return builder.bitcast(cgutils.alloca_once_value(builder, value), pointer)

        def letter(turn: Any) -> Any:
            no, yes = ir.Constant(byte, ord("N")), ir.Constant(byte, ord("T"))
            return place(builder.select(builder.trunc(turn, ir.IntType(1)), yes, no))

        def count(value: Any) -> Any:
            return place(builder.trunc(value, word))

        ta, tb, m, n, k, a, lda, b, ldb, beta, c, ldc = arguments
        one = place(ir.Constant(ir.FloatType(), 1.0))
        a, b, c = (builder.inttoptr(address, pointer) for address in (a, b, c))
        given = [
            letter(ta), letter(tb), count(m), count(n), count(k), one, a, count(lda), b, count(ldb),
            place(beta), c, count(ldc),
        ]  # fmt: skip
        kind = ir.FunctionType(ir.VoidType(), [pointer] * len(given))
        function = cgutils.get_or_insert_function(builder.module, kind, "densekit_sgemm")
        builder.call(function, given)
        return context.get_dummy_value()

    i, f = types.int64, types.float32
    return types.none(i, i, i, i, i, i, i, i, i, f, i, i), code
