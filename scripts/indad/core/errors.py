"""The errors a user can mend: each message names the file or key, what is wrong and what to do."""


class IndadError(Exception):
    """Base of every error whose message is meant for the user, shown without a traceback."""


class ConfigError(IndadError):
    """A key of the configuration has a value that cannot be used."""


class DataError(IndadError):
    """A data set is missing, incomplete or damaged."""


class WeightsError(IndadError):
    """Backbone weights are missing, damaged or do not fit the backbone."""


class StoreError(IndadError):
    """A feature store, model or score file is damaged or was made with other settings."""


class DeviceError(IndadError):
    """The demanded device is not there."""


class DiskError(IndadError):
    """A disk is full, fails, or may not be written to."""
