"""Open Inference datatype names and the numpy types that carry them."""

import numpy as np

_NUMPY = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
    "BYTES": "object",
}  # fmt: skip
_NAMES = {np.dtype(numpy): name for name, numpy in _NUMPY.items()}


def numpy_type(datatype: str) -> np.dtype:
    """Returns the numpy type of an Open Inference datatype; BYTES are object arrays of `bytes`."""
    if datatype == "BF16":
        import ml_dtypes  # numpy has no bfloat16; imported here because few models need it

        bfloat16: np.dtype = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(_NUMPY[datatype])


def datatype_name(dtype: np.dtype) -> str:
    """Returns the Open Inference name of a numpy type, or numpy's name if there is none."""
    if dtype.name == "bfloat16":
        return "BF16"
    return _NAMES.get(dtype, dtype.name)
