"""Opens a wire by its name."""

from loadtest.wires import Address, Wire
from loadtest.wires.http import HttpWire


def open_wire(name: str, address: Address) -> Wire:
    """Opens the wire of that name. Must be called while the event loop runs."""
    if name == "grpc":
        from loadtest.wires.grpc import GrpcWire  # needs the packages of an extra

        return GrpcWire(address)
    return HttpWire(address, name.removeprefix("http-"))
