"""Asks for health as any gRPC client would: grpcio, standard health checking."""

import json
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

result = {}
with grpc.insecure_channel(sys.argv[1]) as channel:
    health = health_pb2_grpc.HealthStub(channel)

    def name(status):
        return health_pb2.HealthCheckResponse.ServingStatus.Name(status)

    result["health"] = name(health.Check(health_pb2.HealthCheckRequest(), timeout=20).status)
    result["stopping"] = name(health.Check(health_pb2.HealthCheckRequest(service="stopping"), timeout=20).status)
    watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=20)
    result["watched"] = name(next(watch).status)
    watch.cancel()
    try:
        health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=20)
    except grpc.RpcError as error:
        result["unknownService"] = error.code().name
    try:
        channel.unary_unary("/cloister.v1.Federation/Join")(b"", timeout=20)
    except grpc.RpcError as error:
        result["unknownMethod"] = error.code().name
print(json.dumps(result))
