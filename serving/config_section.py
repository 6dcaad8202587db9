"""The base class of all sections of the settings."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """The base class of all settings: strict types, no unknown keys, immutable."""

    # Errors hide the input: options may be secret, and clients can read the errors of a manifest's settings.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)
