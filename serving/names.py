"""Names that several parts of a server have to spell alike: the front's, and where models are found."""

FRONT = "front"  # the application that answers what belongs to no model
NAME_CHARACTERS = "A-Za-z0-9._-"  # of a model's name: URLs, gRPC's metadata and HAProxy's rules take all of them
MODELS = "/v2/models/"
FRONT_TAILS = ("route", "release")  # what follows a model's name in paths that the front answers
ROUTES_PAGE = "/debug/routes"  # where HAProxy's script asks the front


def model_path(name: str) -> str:
    """The path that all paths of this model begin with, without a slash at its end."""
    return MODELS + name


def version_path(name: str, version: str) -> str:
    """The path that all paths of this version of the model begin with, without a slash at its end."""
    return f"{model_path(name)}/versions/{version}"


def prefix_of(application: str, model: str, version: str) -> str:
    """The path below which Ray Serve and HAProxy find an application. That of the model's first version is the model's
    own path."""
    return model_path(model) if application == model else version_path(model, version)
