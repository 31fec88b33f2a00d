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
        created = int(time.time())
        self._listing = orjson.dumps(
            {
                "object": "list",
                "data": [
                    {
                        "id": name,
                        "object": "model",
                        "created": created,
                        "owned_by": "vllm",
                        "root": f"/models/{settings.base_model}",
                        "parent": None,
                        "max_model_len": settings.max_model_len,
                        "permission": [_permission(created)],
                    }
                    for name in self._names
                ],
            }
        )

    def check(self, name: str | None) -> None:
        """None and "" mean the base model. Upper and lower case differ. Raises ApiError for a name it does not have."""
        if name and name not in self._names:
            raise unknown_model(name, served=self._names)

    async def list_all(self, call: Call) -> None:
        await call.respond(self._listing)


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
