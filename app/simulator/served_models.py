"""Which names does this server answer to, and what does `GET /v1/models` say of them?"""

import random
import time

import orjson

from app.simulator.call import Call
from app.simulator.errors import unknown_model
from app.simulator.settings import SimulatorSettings


class ServedModels:
    """The names of one server."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._names = settings.models
        self._adapters = frozenset(settings.adapters)
        created = int(time.time())
        self._listing = orjson.dumps(
            {
                "object": "list",
                "data": [
                    *(
                        _card(name, created, root=f"/models/{settings.base_model}", length=settings.max_model_len)
                        for name in self._names
                    ),
                    *(
                        _card(name, created, root=f"/models/{settings.base_model}-lora", parent=settings.base_model)
                        for name in settings.adapters
                    ),
                ],
            }
        )

    def check(self, name: str | None) -> str | None:
        """The adapter that is asked for; None is the base model, which None and "" mean, too. Upper and lower case
        differ. Raises ApiError for a name it does not have."""
        if name in self._adapters:
            return name
        if name and name not in self._names:
            raise unknown_model(name, served=self._names)
        return None

    async def list_all(self, call: Call) -> None:
        await call.respond(self._listing)


def _card(
    name: str, created: int, *, root: str, parent: str | None = None, length: int | None = None
) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "vllm",
        "root": root,
        "parent": parent,
        "max_model_len": length,
        "permission": [_permission(created)],
    }


def _permission(created: int) -> dict[str, object]:
    return {
        "id": f"modelperm-{random.getrandbits(64):016x}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
