"""Reflection, v1 and v1alpha, so that grpcurl and the like need no files.

The library serves v1alpha and does not find methods by their names; both are mended here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2

V1 = "grpc.reflection.v1.ServerReflection"


def _describe_v1() -> None:
    """Add the descriptors of v1 to the pool: those of v1alpha under the other package's name."""
    proto = descriptor_pb2.FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)
    proto.name, proto.package = _v1(proto.name), _v1(proto.package)
    for message in proto.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = _v1(field.type_name)
    for service in proto.service:
        for method in service.method:
            method.input_type, method.output_type = _v1(method.input_type), _v1(method.output_type)
    # The same bytes again, in a process with several servers, are no change.
    descriptor_pool.Default().Add(proto)


def _v1(name: str) -> str:
    return name.replace("v1alpha", "v1")


class _MethodPool:
    """The default pool, which also finds the file of a method by its full name."""

    def __init__(self) -> None:
        self._pool: Any = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        try:
            found: FileDescriptor = self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            parent, _, name = symbol.rpartition(".")
            service = self._pool.FindServiceByName(parent)
            if name not in service.methods_by_name:
                raise
            found = service.file
        return found


def add_reflection(names: Sequence[str], server: grpc.aio.Server) -> None:
    """Serve reflection of the named services in both versions."""
    _describe_v1()
    listed = [*names, V1, reflection.SERVICE_NAME]
    servicer = reflection.aio.ReflectionServicer(listed, pool=_MethodPool())
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for service in (V1, reflection.SERVICE_NAME):
        generic = grpc.method_handlers_generic_handler(service, {"ServerReflectionInfo": handler})
        server.add_generic_rpc_handlers((generic,))
