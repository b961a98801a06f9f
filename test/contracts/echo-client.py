"""Talks to the transport as any gRPC client would: grpcio, generic stubs, standard health checking."""

import json
import sys

import grpc
from google.protobuf.wrappers_pb2 import BytesValue
from grpc_health.v1 import health_pb2, health_pb2_grpc

address, directory = sys.argv[1:]


def read(name):
    with open(f"{directory}/{name}", "rb") as file:
        return file.read()


credentials = grpc.ssl_channel_credentials(
    root_certificates=read("server.pem"), private_key=read("worker.key"), certificate_chain=read("worker.pem")
)
options = [("grpc.ssl_target_name_override", "server"), ("grpc.max_receive_message_length", 16_000_000)]
result = {}
with grpc.secure_channel(address, credentials, options) as channel:
    health = health_pb2_grpc.HealthStub(channel)
    result["health"] = health.Check(health_pb2.HealthCheckRequest(), timeout=20).status
    try:
        health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=20)
    except grpc.RpcError as error:
        result["unknownService"] = error.code().name

    talk = channel.stream_stream(
        "/cloister.test.Echo/Talk",
        request_serializer=BytesValue.SerializeToString,
        response_deserializer=BytesValue.FromString,
    )
    sizes = [0, 1, 1000, 4_000_000, 7]
    replies = list(talk((BytesValue(value=bytes([size % 251]) * size) for size in sizes), timeout=60))
    result["echoed"] = [len(reply.value) for reply in replies]
    result["intact"] = all(reply.value == bytes([size % 251]) * size for reply, size in zip(replies, sizes))

with grpc.secure_channel(address, credentials, options) as channel:
    talk = channel.stream_stream(
        "/cloister.test.Echo/Talk",
        request_serializer=BytesValue.SerializeToString,
        response_deserializer=BytesValue.FromString,
    )
    try:
        list(talk(iter([BytesValue(value=b"refuse me")]), timeout=20))
    except grpc.RpcError as error:
        metadata = dict(error.trailing_metadata())
        result["refusal"] = [error.code().name, error.details(), metadata.get("cloister-code")]
    missing = channel.unary_unary("/cloister.test.Echo/Missing")
    try:
        missing(b"", timeout=20)
    except grpc.RpcError as error:
        result["unknownMethod"] = error.code().name
print(json.dumps(result))
