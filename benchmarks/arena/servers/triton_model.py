"""Triton's python backend, one file for all works: `model.py` of each model in the repository that the arena writes."""

import os
import sys

# Triton's interpreter ignores PYTHONPATH, but the needed packages are in the peers' environment.
sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)

import numpy as np  # noqa: E402
import triton_python_backend_utils as triton  # noqa: E402
import work  # noqa: E402


class TritonPythonModel:
    def initialize(self, args):
        self.answer = work.load(args["model_name"])

    def execute(self, requests):
        bodies = [triton.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        # Texts and photographs arrive as one element of BYTES.
        raw = [bytes(body.flat[0]) if body.dtype == object else body.tobytes() for body in bodies]
        return [
            triton.InferenceResponse([triton.Tensor("y", np.frombuffer(answer, dtype=np.float32)[None])])
            for answer in self.answer(raw)
        ]
