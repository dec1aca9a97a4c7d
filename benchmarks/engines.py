"""Other libraries as competitors: OpenVINO, ONNX Runtime and OpenCV.

Engines get what an application would give them: a compiled model that holds the weights as
constants (packed once, before anything is timed), inputs in memory they read in place, and an
output buffer they reuse. That is to their advantage, and left to them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .case import Competitor, MissingPeerError
from .place import Place

ONNX_OPSET = 22
ONNX_IR_VERSION = 10


def require(package: str) -> Any:
    """Imports a peer's package, or raises `MissingPeerError` with the reason."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name in _itself_and_above(package)
        reason = "is not installed (extra [bench])" if absent else f"cannot be imported: {error}"
        raise MissingPeerError(f"{package} {reason}") from error


def _itself_and_above(package: str) -> list[str]:
    parts = package.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def threads_of(place: Place, package: str) -> int:
    """Returns the threads of a place on the CPU, the only one where an engine is measured."""
    if place.on_gpu:
        raise MissingPeerError(f"{package} is measured on the CPU only")
    return place.threads


def copied(output: Tensor) -> Tensor:
    """Returns the output of an engine, which will write the next one to the same place."""
    return output.clone()


def openvino(
    build: Callable[[Any, Mapping[str, Any]], Any],
    inputs: Mapping[str, Tensor],
    place: Place,
    *,
    read: Callable[..., Tensor] = copied,
) -> Competitor:
    """Compiles an OpenVINO model of one node.

    Args:
        build: makes the node from the opset and the parameter nodes by name.
        inputs: contiguous float32 tensors by name; they are read in place.
        place: whose threads the one stream gets.
        read: makes the result to compare from the outputs of the node.
    """
    threads = threads_of(place, "openvino")
    ov = require("openvino")
    import numpy as np

    opset = ov.opset9
    parameters = {
        name: opset.parameter(list(tensor.shape), np.float32, name=name)
        for name, tensor in inputs.items()
    }
    model = ov.Model(build(opset, parameters).outputs(), list(parameters.values()))
    compiled = ov.Core().compile_model(
        model,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Without it OpenVINO computes in bfloat16 where the processor can: another problem.
            "INFERENCE_PRECISION_HINT": "f32",
        },
    )
    request = compiled.create_infer_request()
    arrays = [tensor.numpy() for tensor in inputs.values()]
    for index, array in enumerate(arrays):
        request.set_input_tensor(index, ov.Tensor(array, shared_memory=True))

    def forward() -> Any:
        assert arrays  # the engine reads them in place: they live as long as this function
        return request.infer(share_outputs=True)

    def results() -> Mapping[str, Tensor]:
        return {"output": read(*map(torch.from_numpy, forward().to_tuple()))}

    return Competitor(steps={"forward": forward}, results=results)


def onnx_node(op: str, inputs: Sequence[str], **attributes: Any) -> Any:
    """Makes an ONNX node whose output is called ``output``."""
    return require("onnx").helper.make_node(op, inputs, ["output"], **attributes)


def onnxruntime(
    node: Any,
    inputs: Mapping[str, Tensor],
    constants: Mapping[str, Tensor],
    output_shape: tuple[int, ...] | None,
    place: Place,
    *,
    read: Callable[[Tensor], Tensor] = copied,
    opset: int = ONNX_OPSET,
) -> Competitor:
    """Loads a model of one ONNX node into ONNX Runtime.

    Args:
        node: made by `onnx_node`.
        inputs: contiguous float32 tensors by the names that ``node`` uses; they are read in place.
        constants: likewise, stored in the model.
        output_shape: of the output, in float32; None: of indices, allocated in every call.
        place: whose threads the session gets.
        read: makes the result to compare from the output.
        opset: which the node belongs to.
    """
    threads = threads_of(place, "onnxruntime")
    onnx, ort = require("onnx"), require("onnxruntime")
    import numpy as np

    helper = onnx.helper

    def describe(name: str, shape: tuple[int, ...] | None) -> Any:
        kind = onnx.TensorProto.INT64 if shape is None else onnx.TensorProto.FLOAT
        return helper.make_tensor_value_info(name, kind, shape and list(shape))

    graph = helper.make_graph(
        [node],
        "one_op",
        [describe(name, tuple(tensor.shape)) for name, tensor in inputs.items()],
        [describe("output", output_shape)],
        [onnx.numpy_helper.from_array(t.numpy(), name) for name, t in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ONNX_IR_VERSION
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Its threads may poll for work within a call, and must stop when the call is over: the next
    # competitor's turn has begun.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    for name, array in arrays.items():
        binding.bind_cpu_input(name, array)
    if output_shape is None:
        binding.bind_output("output", "cpu")
    else:
        output = torch.empty(output_shape)
        binding.bind_output("output", "cpu", 0, np.float32, list(output_shape), output.data_ptr())

    def forward() -> Any:
        assert arrays  # the engine reads them in place: they live as long as this function
        session.run_with_iobinding(binding)
        return binding.get_outputs()[0] if output_shape is None else output

    def results() -> Mapping[str, Tensor]:
        made = forward()
        return {"output": read(made if output_shape else torch.from_numpy(made.numpy()))}

    return Competitor(steps={"forward": forward}, results=results)


def opencv(call: Callable[[Any], Tensor], place: Place) -> Competitor:
    """Calls OpenCV.

    Args:
        call: gets the module and returns the result to compare.
        place: whose threads it may use.
    """
    threads = threads_of(place, "opencv")
    cv2 = require("cv2")

    def forward() -> Tensor:
        cv2.setNumThreads(threads)
        return call(cv2)

    return Competitor(steps={"forward": forward}, results=lambda: {"output": forward()})
