"""What does an explanation say to a person? A line per fact."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from app.admin.explain_picks import load_line

Json = dict[str, Any]


def explain_as_text(answer: Json) -> str:
    """The explanation, as `pointsman explain` prints it."""
    return "\n".join(_lines(answer))


def _lines(answer: Json) -> Iterator[str]:
    request, routing = answer["request"], answer.get("routing")
    yield f"{request['method']} {request['target']} on host {request['host']}, model {request['model'] or '(none)'}"
    if routing is not None:
        name = routing["listener"]
        yield "no listener takes this host" if name is None else f"listener: {name or '(the only one)'}"
    if "rule" in answer:
        yield from _rule_lines(answer["rule"])
    for limit in answer.get("rateLimits", ()):
        yield _limit_line(limit)
    admission = answer.get("admission")
    if admission is not None:
        shed = ", shed" if admission["isShed"] else ""
        yield f"priority {admission['priority']}, saturation of its pools {admission['saturation']:g}{shed}"
    for arm in answer.get("arms", ()):
        yield from _arm_lines(arm, request["method"])
    if "draws" in answer:
        yield from _draw_lines(answer["draws"])
    if "answer" in answer:
        yield f"answered by the gateway: {_answer_line(answer['answer'])}"
    if routing is not None and routing["others"]:
        yield from _loser_lines(routing)


def _rule_lines(rule: Json) -> Iterator[str]:
    yield f"rule: {rule['id']}"
    for name, value in rule.items():
        if name not in ("id", "kind", "route", "name", "backendRefs", "refusal"):
            yield f"  {name}: {orjson.dumps(value).decode()}"


def _limit_line(limit: Json) -> str:
    where = "clients of " + limit["clients"] if limit["clients"] else "all that no other limit holds for"
    shadow = ", in shadow mode" if limit["isShadow"] else ""
    return f"rate limit: {limit['requests']} per {limit['unit'].lower()}, {where}: {limit['remaining']} left{shadow}"


def _arm_lines(arm: Json, method: str) -> Iterator[str]:
    of_what = "the requests" if not arm.get("priority") else f"what priority {arm['priority']} gets"
    yield f"arm: {arm['backend']}, weight {arm['weight']}, {arm['share']:.1%} of {of_what}"
    for endpoint in arm.get("endpoints", ()):
        yield _endpoint_line(endpoint)
        known = load_line(endpoint)
        if known is not None:
            yield f"    {known}"
    if "wouldPick" in arm:
        yield f"  would pick: {arm['wouldPick']}"
    sent = arm.get("upstreamRequest")
    if sent is not None:
        yield f"  sent as: {method} {sent['target']}, host {dict(sent['headers'])['host']}"
    asked = arm.get("asksFor")
    if asked is not None:
        names = ", ".join(f"{target['model']} ({target['share']:.1%})" for target in asked["targets"])
        yield f"  asks for: {names}, says {asked['source']}"
    if "answer" in arm:
        yield f"  answered: {_answer_line(arm['answer'])}"


def _endpoint_line(endpoint: Json) -> str:
    health = endpoint.get("health", "healthy")
    if not endpoint["mayBeTried"]:
        because = f"breaker {endpoint['breaker']}" if health == "healthy" else health
        state = f", left out: {because}"
    elif health != "healthy":
        state = f", used because too few are healthy: {health}"  # panic
    else:
        state = ""
    pod = f" ({endpoint['pod']})" if endpoint.get("pod") else ""
    return f"  endpoint: {endpoint['address']}:{endpoint['port']}{pod}, {endpoint['inFlight']} in flight{state}"


def _draw_lines(draws: Json) -> Iterator[str]:
    yield f"{draws['requests']} requests would go to:"
    for name, count in (*draws["backends"].items(), *draws["endpoints"].items()):
        yield f"  {count:>8}  {name}"
    for name, count in draws.get("models", {}).items():
        yield f"  {count:>8}  as {name}"


def _loser_lines(routing: Json) -> Iterator[str]:
    yield "not taken:"
    for other in routing["others"]:
        yield f"  {other['match']['rule']}: {'; '.join(reason['reason'] for reason in other['because'])}"
    if routing["othersLeftOut"]:
        yield f"  and {routing['othersLeftOut']} more"


def _answer_line(answer: Json) -> str:
    if "code" in answer:
        return f"{answer['status']} {answer['code']}: {answer['message']}"
    location = dict(answer["headers"]).get("location")
    return f"{answer['status']}" + (f", location {location}" if location else "")
