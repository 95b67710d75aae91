"""What every section of the schema is made of: the base class, the bounds of numbers, and errors at a key."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

Positive = Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Width = Annotated[int, Field(ge=1, le=1_000_000)]
Side = Annotated[int, Field(ge=1, le=10_000)]
TestFraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


class Section(BaseModel):
    """A mapping in the config: unknown keys and implicit conversions are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, protected_namespaces=()
    )


def conflict(key: str, message: str, hint: str = "") -> PydanticCustomError:
    """An error of a section's validator that stands at `key` of that section."""
    return PydanticCustomError("conflict", "{message}", {"key": key, "message": message, "hint": hint})


def named(value: Any) -> Any:
    """`sgd` is short for `{name: sgd}`."""
    return {"name": value} if isinstance(value, str) else value
