"""The library's errors. Each is also the builtin error that a caller would expect, so `except ValueError` works."""

import re
from textwrap import shorten


class L3RSError(Exception):
    """Base class of every error that hf_l3rs raises on purpose."""


class ConfigError(L3RSError, ValueError):
    """A configuration value is missing, of the wrong type or out of its range."""


class ArtifactError(L3RSError, OSError):
    """A folder or Hub repository is not a readable L3RS or base model: a file is missing, too new or does not fit."""


class BindingError(L3RSError, RuntimeError):
    """Optimizer and model do not go together: not bound, nothing to train, other layers than the checkpoint's."""


class UnsupportedSetupError(L3RSError, RuntimeError):
    """The training set-up cannot work with L3RS (DeepSpeed, FSDP, sparse gradients, several devices in one model)."""


class StorageError(L3RSError, OSError):
    """Files cannot be written: no permission, no space, or something else stands in their place."""


class DataError(L3RSError, ValueError):
    """A data set lacks what was asked of it: a split, a column, a class, enough images."""


class MetaTrainingError(L3RSError, RuntimeError):
    """Meta-training cannot go on, or gave nothing that could be used: every candidate diverged, processes disagree."""


class NothingToKeepError(MetaTrainingError):
    """A meta-training gave nothing that could be used: every candidate, every validation, or its weights diverged."""


class CheckpointError(L3RSError, RuntimeError):
    """A checkpoint cannot be written or does not belong to this run."""


def reason(error: BaseException) -> str:
    """Returns the first sentence of the error at the bottom of a chain, short and on one line, for a message."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", f"{error}".strip())
    text = re.sub(r"<(?:\w+\.)*(\w+) object at 0x\w+>", r"\1", text)
    first = re.split(r"(?<=[^.][.!?])\s", text, maxsplit=1)[0]
    return shorten(first, 200, placeholder=" ...").rstrip(".!") or type(error).__name__
