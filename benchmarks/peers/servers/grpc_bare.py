"""A minimal Python gRPC server as a baseline: grpc.aio with generated classes and a no-op. `--loop uvloop|asyncio`."""

import argparse
import asyncio

import grpc
import uvloop
from tritonclient.grpc import service_pb2, service_pb2_grpc


class NoOp(service_pb2_grpc.GRPCInferenceServiceServicer):
    async def ModelInfer(
        self, request: service_pb2.ModelInferRequest, context: object
    ) -> service_pb2.ModelInferResponse:
        answer = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
        answer.outputs.add(name="y", datatype="FP32", shape=[request.inputs[0].shape[0], 1])
        answer.raw_output_contents.append(request.raw_input_contents[0][:4])
        return answer


async def serve(port: int) -> None:
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(NoOp(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    chosen = parser.parse_args()
    (uvloop.run if chosen.loop == "uvloop" else asyncio.run)(serve(chosen.port))


if __name__ == "__main__":
    main()
