"""Everything that can go wrong inside `models`: one root, names that state the fault."""


class ModelError(Exception):
    """Root of all errors raised by `models`."""


class InvalidInput(ModelError):
    """A value that a caller gave is out of bounds.

    Carries the parts a person needs to mend it: the field, the value, the limit, the remedy.
    """

    def __init__(self, field: str, value: object, limit: str, remedy: str) -> None:
        super().__init__(f"{field}: {value!r} is not allowed: {limit}. {remedy}")
        self.field, self.value, self.limit, self.remedy = field, value, limit, remedy


class SchemaInvalid(InvalidInput):
    """The feature schema file has a mistake."""


class FeatureUnknown(InvalidInput):
    """A feature name that the schema does not declare."""


class FeatureValueInvalid(InvalidInput):
    """A value that its feature's kind does not take."""


class LogInvalid(InvalidInput):
    """A replay log whose columns or rows do not fit the schema."""


class SnapshotCorrupt(ModelError):
    """A snapshot folder that is truncated, altered or incomplete."""


class SchemaMismatch(ModelError):
    """A snapshot that was trained under another feature schema."""
