"""The artefact on disk and on the Hub."""

from huggingface_hub import ModelHubMixin


class L3RSHubMixin(ModelHubMixin):
    """Placeholder."""

    _hub_mixin_config = {}
