"""Prepare a machine without network: download the weights of the model, and build the command to run there."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

from tessera_cli.errors import SourceRefusedError, SourceUnavailableError, TesseraError
from tessera_cli.models.registry import DEFAULT_MODEL, REGISTRY
from tessera_cli.models.weights import pull
from tessera_cli.runs.folder import TileFolder

logger = logging.getLogger(__name__)


def pull_weights(model: str) -> TesseraError | None:
    """Download the weights of a released model into the local cache; return why the network does not give them.

    UsageError for what is no matter of the network. Models without published weights need nothing.
    """
    spec = REGISTRY.get(model)
    if spec is None or spec.weights is None:  # a file of the user's own, or no network to run
        return None
    try:
        logger.info("weights of %s: %s", spec.name, pull(spec.name)["path"])
    except (SourceRefusedError, SourceUnavailableError) as error:
        logger.warning("the weights of %s cannot be downloaded now; going on with the d-pixels", spec.name)
        return type(error)(f"{error} Of what was asked for only this is missing: `tessera weights pull {spec.name}`.")
    return None


def embed_command(
    folder: TileFolder,
    *,
    model: object,
    weights: object,
    model_config: object,
    force_source: bool,
    allow_missing: int,
    out: Path,
) -> str:
    """Return the command line that embeds the d-pixels of `folder`; what is None, False or 0 is left out.

    Official folders (npy) record neither source nor preprocessing, so the command says them.
    """
    said, official = folder.identity, folder.identity["format"] == "npy"
    options = {
        "dpixels": folder.path,
        "model": model or (None if weights else DEFAULT_MODEL),
        "weights": weights,
        "model-config": model_config,
        "source": said["source"] if official else None,
        "force-source": force_source,
        "preprocessing": said["preprocessing"] if official and said["preprocessing"] != "official" else None,
        "allow-missing": allow_missing,
        "out": out,
    }
    words = ["tessera", "embed"]
    for name, value in options.items():
        if value:
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return shlex.join(words)
