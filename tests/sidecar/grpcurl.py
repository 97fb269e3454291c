#!/usr/bin/python3
"""Calls a gRPC service as grpcurl does, for docs/API.md's examples: JSON in, JSON out, all knowledge from the server's reflection.

Nothing of Tickgate is in it: HTTP/2, TLS and gRPC are Google's C core, messages and JSON are Google's protobuf (Debian: python3-grpcio,
python3-protobuf). Of grpcurl it knows -cacert, -cert, -key, -H, -d (also @), -max-time, `list`, and calls; of its output what a script reads:
JSON, or ERROR with Code and Message on standard error, and 64 more than the status as exit code.
"""

import sys

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

REFLECTION = "grpc.reflection.v1"
FIELD = descriptor_pb2.FieldDescriptorProto


def reflection_messages():
    """The few fields of the reflection protocol that are needed (grpc/reflection/v1/reflection.proto)."""
    file = descriptor_pb2.FileDescriptorProto(name="reflection.proto", package=REFLECTION, syntax="proto3")

    def message(name, *fields):
        declared = file.message_type.add(name=name)
        for number, field, kind, repeated in fields:
            label = FIELD.LABEL_REPEATED if repeated else FIELD.LABEL_OPTIONAL
            added = declared.field.add(name=field, number=number, label=label)
            if isinstance(kind, str):
                added.type, added.type_name = FIELD.TYPE_MESSAGE, f".{REFLECTION}.{kind}"
            else:
                added.type = kind

    message("Request", (3, "file_by_filename", FIELD.TYPE_STRING, False), (4, "file_containing_symbol", FIELD.TYPE_STRING, False),
            (7, "list_services", FIELD.TYPE_STRING, False))
    message("Files", (1, "file", FIELD.TYPE_BYTES, True))
    message("Service", (1, "name", FIELD.TYPE_STRING, False))
    message("Services", (1, "service", "Service", True))
    message("Error", (1, "code", FIELD.TYPE_INT32, False), (2, "message", FIELD.TYPE_STRING, False))
    message("Response", (4, "files", "Files", False), (6, "services", "Services", False), (7, "error", "Error", False))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return [message_of(pool, f"{REFLECTION}.{name}") for name in ("Request", "Response")]


def message_of(pool, name):
    return message_factory.MessageFactory(pool).GetPrototype(pool.FindMessageTypeByName(name))


class Reflection:
    def __init__(self, channel):
        self.request, response = reflection_messages()
        self.ask_stream = channel.stream_stream(
            f"/{REFLECTION}.ServerReflection/ServerReflectionInfo",
            request_serializer=self.request.SerializeToString,
            response_deserializer=response.FromString,
        )

    def ask(self, **question):
        (answer,) = self.ask_stream(iter([self.request(**question)]))
        if answer.HasField("error"):
            sys.exit(f"Error: {answer.error.message}")
        return answer

    def services(self):
        # The name does not matter; that it is there does.
        return sorted(service.name for service in self.ask(list_services="*").services.service)

    def pool_of(self, service):
        pool, known = descriptor_pool.DescriptorPool(), set()

        def add(answer):
            for file in map(descriptor_pb2.FileDescriptorProto.FromString, answer.files.file):
                if file.name not in known:
                    known.add(file.name)
                    for other in file.dependency:
                        if other not in known:
                            add(self.ask(file_by_filename=other))
                    pool.Add(file)

        add(self.ask(file_containing_symbol=service))
        return pool


def arguments(words):
    options, rest, headers = {}, [], []
    words = iter(words)
    for word in words:
        if word == "-H":
            name, _, value = next(words).partition(":")
            headers.append((name.strip().lower(), value.strip()))
        elif word.startswith("-"):
            options[word.lstrip("-")] = next(words)
        else:
            rest.append(word)
    return options, headers, rest


def read(path):
    with open(path, "rb") as file:
        return file.read()


def main():
    options, headers, (address, wanted) = arguments(sys.argv[1:])
    parts = {name: read(options[name]) for name in ("cacert", "cert", "key") if name in options}
    credentials = grpc.ssl_channel_credentials(parts.get("cacert"), parts.get("key"), parts.get("cert"))
    with grpc.secure_channel(address, credentials) as channel:
        reflection = Reflection(channel)
        if wanted == "list":
            print("\n".join(reflection.services()))
            return
        service, _, name = wanted.rpartition("/")
        pool = reflection.pool_of(service)
        method = pool.FindServiceByName(service).methods_by_name[name]
        request = message_of(pool, method.input_type.full_name)
        response = message_of(pool, method.output_type.full_name)
        text = options.get("d", "{}")
        message = json_format.Parse(sys.stdin.read() if text == "@" else text, request())
        call = channel.unary_unary(
            f"/{wanted}", request_serializer=request.SerializeToString, response_deserializer=response.FromString
        )
        answer = call(message, metadata=headers, timeout=float(options.get("max-time", 20)))
        print(json_format.MessageToJson(answer))


try:
    main()
except grpc.RpcError as error:
    code = error.code()
    words = "".join(word.capitalize() for word in code.name.split("_"))
    print(f"ERROR:\n  Code: {words}\n  Message: {error.details()}", file=sys.stderr)
    sys.exit(64 + code.value[0])
