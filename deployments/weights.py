"""From a spec's `weights` to a directory on this host."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from heliostat.errors import HeliostatError

_PATTERNS = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]


def local_weights(weights: str) -> Path:
    """The directory itself, or a hub checkpoint's after download. Raises HeliostatError."""
    path = Path(weights)
    if path.is_absolute():
        if not path.is_dir():
            raise HeliostatError(f"weights {weights}: no such directory on this host")
        return path
    try:
        return Path(snapshot_download(weights, allow_patterns=_PATTERNS))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise HeliostatError(f"weights {weights}: the hub did not give them: {error}") from error
