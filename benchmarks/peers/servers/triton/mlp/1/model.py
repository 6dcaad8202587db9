"""Triton's python backend, which runs the MLP on all rows of Triton's batch."""

import os
import sys

# Triton's interpreter ignores PYTHONPATH, but torch is in the peers' environment.
sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)

import mlp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import triton_python_backend_utils as triton  # noqa: E402


class TritonPythonModel:
    def initialize(self, args):
        self.model = mlp.build()

    def execute(self, requests):
        parts = [triton.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        with torch.inference_mode():
            y = self.model(torch.from_numpy(np.concatenate(parts))).numpy()
        answers, start = [], 0
        for part in parts:
            answers.append(triton.InferenceResponse([triton.Tensor("y", y[start : start + len(part)])]))
            start += len(part)
        return answers
