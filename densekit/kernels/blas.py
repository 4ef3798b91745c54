"""A single-threaded matrix product for compiled loops.

It uses torch's library if that exports one (MKL), otherwise SciPy's. Importing this module imports
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
    """Addresses of torch's matrix product and of the function that sets its number of threads."""
    for path in (Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*"):
        library = ctypes.CDLL(str(path))
        names = "sgemm_", "MKL_Set_Num_Threads_Local"
        if all(hasattr(library, name) for name in names):
            sgemm, threads = (ctypes.cast(getattr(library, n), ctypes.c_void_p) for n in names)
            if sgemm.value and threads.value:
                return sgemm.value, threads.value
    return None


_found = _addresses()
# Compiled code refers to the functions by name, because cached code must not contain addresses.
llvm.add_symbol(
    "densekit_sgemm",
    _found[0] if _found else get_cython_function_address("scipy.linalg.cython_blas", "sgemm"),
)
llvm.add_symbol("densekit_blas_threads", _found[1] if _found else _nothing.address)
_lock, _inside, _limit = threading.Lock(), 0, cast(Any, None)
_controller: Any = None if _found else threadpoolctl.ThreadpoolController().select(user_api="blas")

blas_threads: Any = types.ExternalFunction("densekit_blas_threads", types.int32(types.int32))
"""Sets the number of threads of products in this thread, 0 for the default, and returns the previous
one; with SciPy's library :func:`alone` does this.
"""


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Limit SciPy's library, process-wide, to one thread until the last caller exits."""
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
    """Context manager in which each matrix product uses one thread."""
    return _one_thread() if _controller else contextlib.nullcontext()


@intrinsic
def sgemm(
    _: Any, transpose_a: Any, transpose_b: Any, m: Any, n: Any, k: Any, a: Any, lda: Any, b: Any,
    ldb: Any, beta: Any, c: Any, ldc: Any,
) -> Any:  # fmt: skip
    """C = A B + beta C for column-major matrices at addresses, as in BLAS.

    ``transpose_a`` and ``transpose_b`` are 1 to transpose a matrix, else 0.
    """

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, byte = ir.IntType(32), ir.IntType(8)
        pointer = byte.as_pointer()

        def stack_pointer(value: Any) -> Any:
            return builder.bitcast(cgutils.alloca_once_value(builder, value), pointer)

        def letter(transposed: Any) -> Any:
            no, yes = ir.Constant(byte, ord("N")), ir.Constant(byte, ord("T"))
            return stack_pointer(builder.select(builder.trunc(transposed, ir.IntType(1)), yes, no))

        def count(value: Any) -> Any:
            return stack_pointer(builder.trunc(value, word))

        ta, tb, m, n, k, a, lda, b, ldb, beta, c, ldc = arguments
        one = stack_pointer(ir.Constant(ir.FloatType(), 1.0))
        a, b, c = (builder.inttoptr(address, pointer) for address in (a, b, c))
        given = [
            letter(ta), letter(tb), count(m), count(n), count(k), one, a, count(lda), b, count(ldb),
            stack_pointer(beta), c, count(ldc),
        ]  # fmt: skip
        kind = ir.FunctionType(ir.VoidType(), [pointer] * len(given))
        function = cgutils.get_or_insert_function(builder.module, kind, "densekit_sgemm")
        builder.call(function, given)
        return context.get_dummy_value()

    i, f = types.int64, types.float32
    return types.none(i, i, i, i, i, i, i, i, i, f, i, i), code
