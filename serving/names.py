"""Names that several parts of a server have to spell alike: the front's, and where models are found."""

FRONT = "front"  # the application that answers what belongs to no model
NAME_CHARACTERS = "A-Za-z0-9._-"  # of a model's name: URLs, gRPC's metadata and HAProxy's rules take all of them
MODELS = "/v2/models/"


def model_path(name: str) -> str:
    """The path that all paths of this model begin with, without a slash at its end."""
    return MODELS + name
