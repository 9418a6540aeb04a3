"""Errors the user can fix: each message names the file or key, what is wrong and what to do."""


class IndadError(Exception):
    """Base class of errors that are shown to the user without a traceback."""


class ConfigError(IndadError):
    """A key of the configuration has an invalid value."""


class DataError(IndadError):
    """A data set is missing, incomplete or damaged."""


class WeightsError(IndadError):
    """Backbone weights are missing, damaged or do not fit the backbone."""


class StoreError(IndadError):
    """A feature store, model or score file is damaged or was made with other settings."""


class DeviceError(IndadError):
    """The configured device is missing, or its memory is too small."""


class DiskError(IndadError):
    """A disk is full, fails, or is write-protected."""


class ExportError(IndadError):
    """An exported model does not score as the model it was made from."""
