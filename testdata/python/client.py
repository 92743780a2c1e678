"""A client of keel.v1 that shares nothing with osctl: stubs made from the proto files by grpc_tools, the wire by grpcio.

It calls every method that the proto files declare, and prints a line of JSON for each: the method, the status code, what came, and
the same byte for byte.
Arguments: the folder of the proto files, an address, the node's certificate, a name that it is for, and the client's certificate and key.
"""

import importlib
import json
import sys
import tempfile
from pathlib import Path

import grpc
from google.protobuf import json_format
from grpc_tools import protoc

# Requests that are not empty. What changes a machine is asked for without being done.
REQUESTS = {
    "/keel.v1.Cluster/Bootstrap": {"apiServer": "https://127.0.0.1:9", "token": "abcdef.planted5token5ab", "caHash": "sha256:" + 32 * "ab", "dryRun": True},
    "/keel.v1.Cluster/Unbootstrap": {"dryRun": True},
    "/keel.v1.Config/Apply": {"files": [{"name": "c.toml", "text": "schema = 1\n"}], "mode": "APPLY_MODE_AUTO", "dryRun": True},
    "/keel.v1.Config/Rollback": {"mode": "APPLY_MODE_AUTO", "dryRun": True},
    "/keel.v1.Node/GetUnit": {"unit": "boot"},
    "/keel.v1.Operation/ControlUnit": {"unit": "boot", "verb": "UNIT_VERB_STOP", "dryRun": True},
    "/keel.v1.Operation/PowerOff": {"dryRun": True},
    "/keel.v1.Operation/Reboot": {"dryRun": True},
    "/keel.v1.Operation/Reset": {"dryRun": True},
}

# How long a call may take, in seconds.
PATIENCE = 30


def modules(protos: Path, out: Path):
    """Compiles the proto files and imports what comes out, but for the services: those are called by their descriptors."""
    files = sorted(str(path.relative_to(protos)) for path in protos.rglob("*.proto"))
    include = Path(protoc.__file__).parent / "_proto"
    status = protoc.main(["protoc", f"-I{protos}", f"-I{include}", f"--python_out={out}", *files])
    if status != 0:
        sys.exit(f"protoc ended with {status}")
    sys.path.insert(0, str(out))
    return [importlib.import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2") for name in files]


def call(channel, name, method, messages):
    """One call of a method, whole: a stream is read to its end."""
    request = json_format.ParseDict(REQUESTS.get(name, {}), messages(method.input_type)())
    kind = channel.unary_stream if method.server_streaming else channel.unary_unary
    stub = kind(
        name,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=bytes,
    )
    try:
        answer = stub(request, timeout=PATIENCE)
        answers = list(answer) if method.server_streaming else [answer]
    except grpc.RpcError as error:
        trailers = [value if isinstance(value, bytes) else value.encode() for _, value in error.trailing_metadata() or ()]
        wire = [error.details().encode(), *trailers]
        return {"method": name, "code": error.code().name, "why": error.details(), "wire": [piece.hex() for piece in wire]}
    parse = messages(method.output_type).FromString
    told = [json_format.MessageToDict(parse(answer)) for answer in answers]
    return {"method": name, "code": "OK", "answers": told, "wire": [answer.hex() for answer in answers]}


def main(protos, address, node, name, certificate, key):
    from google.protobuf.message_factory import GetMessageClass

    credentials = grpc.ssl_channel_credentials(*(Path(path).read_bytes() for path in (node, key, certificate)))
    options = [("grpc.ssl_target_name_override", name)]
    with tempfile.TemporaryDirectory() as out, grpc.secure_channel(address, credentials, options) as channel:
        for module in modules(Path(protos), Path(out)):
            for service in module.DESCRIPTOR.services_by_name.values():
                for method in service.methods:
                    path = f"/{service.full_name}/{method.name}"
                    print(json.dumps(call(channel, path, method, GetMessageClass)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
