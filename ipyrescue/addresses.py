"""Where the bytes of a buffer stand in memory."""

from __future__ import annotations

import ctypes


def address_of(view: memoryview) -> int:
    """The address of a contiguous buffer's first byte, read-only buffers included."""
    if view.nbytes == 0:
        return 0
    info = _PyBuffer()
    _get_buffer(ctypes.py_object(view), ctypes.byref(info), 0)
    address: int = info.buf
    _release_buffer(ctypes.byref(info))
    return address


class _PyBuffer(ctypes.Structure):
    """CPython's Py_buffer (C API manual, "Buffer Protocol"): the one way to a read-only buffer's address."""

    _fields_ = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = [ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int]
_get_buffer.restype = ctypes.c_int
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = [ctypes.POINTER(_PyBuffer)]
_release_buffer.restype = None
