"""Which endpoint answers a request? The table of routes, and the one place where an error becomes an answer."""

from collections.abc import Awaitable, Callable, Mapping

from starlette.types import Receive, Scope, Send

from app.simulator.answering import Answering
from app.simulator.audio import Transcriptions
from app.simulator.call import Call, ClientLeftError, read_body
from app.simulator.chat import ChatCompletions
from app.simulator.completions import Completions
from app.simulator.embeddings import Embeddings
from app.simulator.engine import Engine
from app.simulator.errors import METHOD_NOT_ALLOWED, NOT_FOUND, UNPARSABLE_BODY, ApiError, UnparsableBodyError
from app.simulator.images import Images
from app.simulator.messages import Messages
from app.simulator.metrics import MetricsPage
from app.simulator.request_log import ReceivedRequest, RequestLog
from app.simulator.rerank import Rerank
from app.simulator.responses import Responses
from app.simulator.served_models import ServedModels
from app.simulator.settings import SimulatorSettings
from app.simulator.status import Status
from app.simulator.text import Voice
from app.simulator.tokens import Tokens

Endpoint = Callable[[Call], Awaitable[None]]


class SimulatorApplication:
    """The ASGI application of one simulated model server."""

    def __init__(self, *, settings: SimulatorSettings, engine: Engine, requests: RequestLog) -> None:
        models = ServedModels(settings)
        answering = Answering(engine=engine)
        voice = Voice(model=settings.base_model, pod=settings.name)
        status = Status(engine=engine)
        self._requests = requests
        chat = ChatCompletions(settings=settings, models=models, answering=answering, voice=voice)
        completions = Completions(settings=settings, models=models, answering=answering, voice=voice)
        responses = Responses(settings=settings, models=models, answering=answering, voice=voice)
        messages = Messages(settings=settings, models=models, answering=answering, voice=voice)
        rerank = Rerank(settings=settings, models=models, answering=answering)
        tokens = Tokens(settings=settings, models=models)
        self._stored_response = {"GET": responses.retrieve}
        self._routes: dict[str, dict[str, Endpoint]] = {
            "/v1/chat/completions": {"POST": chat},
            "/v1/completions": {"POST": completions},
            "/v1/responses": {"POST": responses.create},
            "/v1/messages": {"POST": messages.create},
            "/v1/messages/count_tokens": {"POST": messages.count_tokens},
            "/v1/embeddings": {"POST": Embeddings(settings=settings, models=models, answering=answering)},
            "/v1/rerank": {"POST": rerank},
            "/rerank": {"POST": rerank},
            "/v1/audio/transcriptions": {"POST": Transcriptions(models=models, answering=answering, voice=voice)},
            "/v1/images/generations": {"POST": Images(models=models, answering=answering)},
            "/tokenize": {"POST": tokens.tokenize},
            "/detokenize": {"POST": tokens.detokenize},
            "/v1/models": {"GET": models.list_all},
            "/health": {"GET": status.health},
            "/ping": {"GET": status.health, "POST": status.health},
            "/version": {"GET": status.version},
            "/load": {"GET": status.load},
            "/metrics": {"GET": MetricsPage(engine=engine)},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(path=scope["path"], headers=scope["headers"], body=b"", receive=receive, send=send)
        methods = self._methods(call.path)
        endpoint = methods.get(scope["method"])
        try:
            if endpoint is not None:
                call.body = await read_body(receive)
            if self._requests.is_on and call.path != "/metrics":  # which a gateway asks for twenty times a second
                self._requests.add(_as_received(scope, call.body))
            if endpoint is None:
                await self._refuse(call, scope, methods)
            else:
                await endpoint(call)
        except ClientLeftError:
            return
        except UnparsableBodyError:
            await call.respond(UNPARSABLE_BODY, status=400)
        except ApiError as error:
            await call.respond(error.body(for_messages=call.path.startswith("/v1/messages")), status=error.status)

    def _methods(self, path: str) -> Mapping[str, Endpoint]:
        """What can be done with a path; nothing if it is unknown."""
        methods = self._routes.get(path)
        if methods is not None:
            return methods
        folder, _, name = path.rpartition("/")
        return self._stored_response if folder == "/v1/responses" and name else {}

    async def _refuse(self, call: Call, scope: Scope, methods: Mapping[str, Endpoint]) -> None:
        """Unknown paths and methods are answered before the body is read; uvicorn swallows the rest of it."""
        without_slash = call.path.rstrip("/")
        if methods:
            allowed = (b"allow", next(iter(methods)).encode())
            await call.respond(METHOD_NOT_ALLOWED, status=405, before=[allowed])
        elif call.path.endswith("/") and self._methods(without_slash):
            target = scope["raw_path"].rstrip(b"/") + (b"?" + scope["query_string"] if scope["query_string"] else b"")
            location = (b"location", b"http://" + (call.header(b"host") or b"") + target)
            await call.respond(b"", status=307, content_type=None, after=[location])
        else:
            await call.respond(NOT_FOUND, status=404)


def _as_received(scope: Scope, body: bytes) -> ReceivedRequest:
    query = scope["query_string"]
    target = scope["raw_path"] + b"?" + query if query else scope["raw_path"]
    return ReceivedRequest(method=scope["method"], target=target, headers=scope["headers"], body=body)
