"""Where a teacher is reached: the one thing that the server's life and the HTTP client both speak of."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from engine.config import TeacherConfig
from engine.errors import UserError


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server that speaks the OpenAI protocol, and the name under which it serves the teacher."""

    base_url: str
    """Ends with `/v1`, without a slash after it."""
    model: str
    api_key: str | None = field(default=None, repr=False)

    @property
    def root_url(self) -> str:
        """Where a server has what is not of the protocol: /health and /metrics."""
        return self.base_url.removesuffix("/v1")

    @property
    def authorization(self) -> dict[str, str]:
        """The header that shows the key."""
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}


def user_endpoint(url: str, model: str, api_key: str | None) -> Endpoint:
    """An endpoint as a user gives it: with or without `/v1`. `model` is still the configuration's; see `discovery.find_model`."""
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and url.isascii()
    except ValueError:
        is_url = False
    if not is_url:
        raise UserError(f"endpoint {url!r} is no URL of a server; give its base URL, e.g. http://127.0.0.1:8000/v1")
    base = url.rstrip("/")
    return Endpoint(base if base.endswith("/v1") else f"{base}/v1", model, api_key or None)


def configured_endpoints(config: TeacherConfig) -> list[Endpoint]:
    """The endpoints a configuration names, with the key from the environment."""
    key = os.environ.get(config.api_key_env, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"the environment variable {config.api_key_env} holds characters that no API key has; set it again")
    return [user_endpoint(url, config.model, key) for url in config.endpoints]


def served_name(model: str) -> str:
    """The name a server of ours gives to a model: a folder's own name, so that a run moved to another place asks the same requests."""
    return Path(model).name if is_folder_name(model) else model


def is_folder_name(model: str) -> bool:
    """Folders arrive here as absolute paths (`config.resolve_model`); everything else is the id of a model on a hub."""
    return Path(model).is_absolute()


def match_served(endpoint: Endpoint, served: dict[str, str]) -> Endpoint:
    """`endpoint` under the name its server really uses; `served` maps the names a server has to where it loaded each from.

    A name is taken as it stands. A folder (which the server may know by another path) is recognised by the path it was loaded from, then
    by its own name, then by being the only model there. A hub id is never exchanged for another model.
    """
    wanted = endpoint.model
    if wanted in served:
        return endpoint
    if is_folder_name(wanted):
        by_root = [name for name, root in served.items() if root == wanted][:1]  # more of them are aliases of one model
        by_name = [name for name in served if Path(name).name == Path(wanted).name]
        for names in (by_root, by_name, list(served)):
            if len(names) == 1:
                return replace(endpoint, model=names[0])
    has = ", ".join(sorted(served)) or "none"
    raise UserError(f"{endpoint.base_url} does not serve {wanted!r}; it serves: {has}; set teacher.model to one of those")
