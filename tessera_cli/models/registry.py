"""The released models, by name."""

from __future__ import annotations

import difflib

from tessera_cli.errors import UsageError
from tessera_cli.models.architecture import EncoderConfig
from tessera_cli.models.families import PARTS, family_spec
from tessera_cli.models.spec import HubFile, ModelSpec, PackagedFile

DEFAULT_MODEL = "v2-medium"
NO_MODEL = "none"
"""What `fetch --model` takes to leave weights out: not the name of a model."""

NANO_CONFIG = EncoderConfig.of(latent=36, layers=2, heads=4, feedforward=384)
SMALL_CONFIG = EncoderConfig.of(latent=64, layers=4, heads=4, feedforward=1024)
MEDIUM_CONFIG = EncoderConfig.of(latent=110, layers=4, heads=4, feedforward=1792)
LARGE_CONFIG = EncoderConfig.of(latent=160, layers=4, heads=4, feedforward=2560)
V1_0_CONFIG = EncoderConfig.of(latent=128, layers=8, heads=8, feedforward=4096, **PARTS["v1.0-early"])
V1_0_QAT_CONFIG = EncoderConfig.of(latent=128, layers=4, heads=4, feedforward=4096, **PARTS["v1.0-qat"])
V1_1_CONFIG = EncoderConfig.of(latent=192, layers=4, heads=4, feedforward=2048, representation=192, **PARTS["v1.1"])
TEACHER_CONFIG = EncoderConfig.of(
    latent=1024, layers=4, heads=4, feedforward=16384, representation=1024, **PARTS["v2-teacher"]
)


_V1_0, _V1_1 = "geotessera/TESSERA-V-1.0", "geotessera/TESSERA-V-1.1"
"""Repositories on the Hugging Face hub."""


def _student(size: str, config: EncoderConfig, nbytes: int, sha256: str) -> ModelSpec:
    weights = HubFile(f"geotessera/TESSERA-V-2.0-2B-{size[0].upper()}", f"ckpt/student_{size}.pt", nbytes, sha256)
    return family_spec("v2-student", f"v2-{size}", config, weights=weights, dims=(16, 32, 64, 128))


_SPECS = (
    family_spec("v1.0-early", "v1.0", V1_0_CONFIG, weights=HubFile(_V1_0, "best_model_fsdp_20250427_084307.pt")),
    family_spec("v1.0-qat", "v1.0-qat", V1_0_QAT_CONFIG, weights=HubFile(_V1_0, "tessera-v1.0-QAT-best.pt")),
    family_spec(
        "v1.1",
        "v1.1-mpc",
        V1_1_CONFIG,
        source="mpc",
        weights=HubFile(
            _V1_1,
            "tessera_v1_1_mpc_encoder.pt",
            230_891_229,
            "5dab0f070d5711034f7c241e841eaeedb49fef90b9355f68c8f20b9507839ec3",
        ),
    ),
    family_spec("v1.1", "v1.1-aws", V1_1_CONFIG, source="aws", weights=HubFile(_V1_1, "tessera_v1_1_aws_encoder.pt")),
    _student("nano", NANO_CONFIG, 4_288_221, "bc9929e3643dfab2744c2ce14e7c14f698703a94e9562e4e0982f9d6540b0691"),
    _student("small", SMALL_CONFIG, 28_488_531, "92619d4ffc2936895f145fdcf710140b58c23c860e02f01873828b10c6958d95"),
    _student("medium", MEDIUM_CONFIG, 84_163_403, "3823be7db9d9cfc93f3c2a47c7699be82821ab4e1117d4d2befdb746941ee96e"),
    _student("large", LARGE_CONFIG, 175_363_923, "b5f20239dbb1849c01a3e407b095aafe39b0bf764300206af78cb9b85f9ec1e1"),
    family_spec(
        "v2-teacher",
        "v2-teacher",
        TEACHER_CONFIG,
        weights=HubFile(
            "geotessera/TESSERA-V-2.0-2B-Teacher",
            "ckpt/tessera_v2_2B_teacher.pt",
            8_257_134_395,
            "bfca890a9956485edf9d6be61375fde4cd0b4cb4b47db79596f0523a289aa555",
        ),
    ),
    family_spec(
        "v2-student",
        "demo",
        NANO_CONFIG,
        weights=PackagedFile("demo.safetensors"),
        dims=(16, 32, 64, 128),
        demonstration_only=True,
    ),
    ModelSpec("null", "band-means", None, hidden=True),
)

REGISTRY: dict[str, ModelSpec] = {spec.name: spec for spec in _SPECS}


def available() -> list[str]:
    """Return the names to offer to a user."""
    return [name for name, spec in REGISTRY.items() if not spec.hidden]


def published(sha256: str) -> ModelSpec | None:
    """Return the released model whose weights have this checksum, None if there is none."""
    files = ((spec, spec.weights) for spec in REGISTRY.values() if isinstance(spec.weights, HubFile))
    return next((spec for spec, file in files if file.sha256 == sha256), None)


def get_spec(name: str) -> ModelSpec:
    """Return the released model of this name; UsageError with the nearest names if there is none."""
    if name in REGISTRY:
        return REGISTRY[name]
    if name == NO_MODEL:
        raise UsageError(
            f"{name} is no model: with it `tessera fetch` leaves weights out. Here choose one of "
            f"{', '.join(available())}."
        )
    near = [known for known in available() if known.startswith(f"{name.lower()}-")]
    near = near or difflib.get_close_matches(name.lower(), available(), n=1)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise UsageError(
        f"{name}: there is no such model or file. {hint}"
        f"Choose one of {', '.join(available())}, or give the path of a .safetensors file or its folder."
    )
