"""How are endpoints picked? An EndpointPickerConfig, the Inference Extension's own format, decoded (pure).

Decoding is strict: an unknown key, a plugin type that we do not have and a parameter that we would not honour are
errors with the line they stand on. Plugins that say where data comes from are taken and do nothing where that is how it
works here in any case.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from discovery.resources.problem import FieldPath, Problem, Severity, format_path
from discovery.resources.schema import Finding, validate
from discovery.resources.yaml_documents import Document, DocumentError, read_documents
from middleware.scheduling.picker_schema import API_VERSIONS, CONFIGURATION, IGNORED_GATES, KIND
from middleware.scheduling.plugins import (
    DEFAULT_PREFIX_SETTINGS,
    PLUGINS,
    PrefixSettings,
    Role,
    known_elsewhere,
    make_filter,
    make_picker,
    make_scorer,
    prefix_settings,
    thresholds,
)
from middleware.scheduling.profile import DEFAULT_PROFILE, DEFAULT_SCORERS, NamedFilter, Profile, WeightedScorer
from middleware.scheduling.saturation import DEFAULT_THRESHOLDS, Thresholds

_SCHEDULING = (Role.FILTER, Role.SCORER, Role.PICKER)
METRICS_PATH = "/metrics"
_HANDLER = "single-profile-handler"
_PARSERS = frozenset(kind for kind in PLUGINS if kind.endswith("-parser"))
_DETECTORS = frozenset(kind for kind, plugin in PLUGINS.items() if plugin.role is Role.DETECTOR)


@dataclass(frozen=True, slots=True, kw_only=True)
class PickerConfiguration:
    """Everything that an EndpointPickerConfig says."""

    profile: Profile = DEFAULT_PROFILE
    is_default: bool = True  # no file: pools may choose by their annotation
    prefix: PrefixSettings = DEFAULT_PREFIX_SETTINGS
    thresholds: Thresholds = DEFAULT_THRESHOLDS
    metrics_path: str = METRICS_PATH


class PickerConfigurationError(Exception):
    """An EndpointPickerConfig that cannot be used, with everything that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.problems = tuple(problems)


def decode_picker_configuration(text: str, *, file: str) -> PickerConfiguration:
    """Raises PickerConfigurationError. ``file`` is the name that problems are reported under."""
    try:
        documents = list(read_documents(text))
    except DocumentError as error:
        raise PickerConfigurationError([_problem(file, error.line, (), error.message)]) from None
    if len(documents) != 1:
        message = f"must hold one {KIND}, not {len(documents)} documents"
        raise PickerConfigurationError([_problem(file, 1, (), message)])
    document = documents[0]
    decoder = _Decoder(document)
    configuration = decoder.decode()
    if decoder.findings or configuration is None:
        raise PickerConfigurationError(
            [_problem(file, document.line_of(path), path, message) for path, message in decoder.findings]
        )
    return configuration


def _problem(file: str, line: int, path: FieldPath, message: str) -> Problem:
    return Problem(severity=Severity.REFUSED, file=file, line=line, kind=KIND, field=format_path(path), message=message)


class _Decoder:
    def __init__(self, document: Document) -> None:
        self._data = document.data
        self.findings: list[Finding] = []
        self._plugins: dict[str, dict[str, Any]] = {}  # by name
        self._roles: dict[str, Role] = {}

    def decode(self) -> PickerConfiguration | None:
        data = self._data
        if not isinstance(data, dict) or data.get("kind") != KIND or data.get("apiVersion") not in API_VERSIONS:
            self._find((), f"must be an {KIND} of {' or '.join(API_VERSIONS)}")
            return None
        data, found = validate(data, CONFIGURATION)
        self.findings += found
        if found:
            return None
        for index, gate in enumerate(data.get("featureGates", ())):
            if gate not in IGNORED_GATES:
                self._find(("featureGates", index), f'the feature "{gate}" is not implemented')
        for index, plugin in enumerate(data.get("plugins", ())):
            self._take_plugin(plugin, ("plugins", index))
        self._check_references(data)
        profile = self._profile(data)
        if self.findings:
            return None
        detector = self._detector(data)
        inline = {key: value for key, value in data.get("saturationDetector", {}).items() if key != "pluginRef"}
        return PickerConfiguration(
            profile=profile,
            is_default=False,
            prefix=prefix_settings(
                [*self._of_type("approx-prefix-cache-producer"), *self._of_type("prefix-cache-scorer")]
            ),
            thresholds=thresholds({**detector, **inline}),
            metrics_path=next((p["path"] for p in self._of_type("metrics-data-source") if "path" in p), METRICS_PATH),
        )

    def _take_plugin(self, plugin: dict[str, Any], path: FieldPath) -> None:
        kind = plugin["type"]
        name = plugin.get("name") or kind
        if name in self._plugins:
            self._find((*path, "name"), f'there are two plugins named "{name}"')
            return
        known = PLUGINS.get(kind)
        if known is None:
            self._find((*path, "type"), known_elsewhere(kind))
            self._plugins[name] = plugin
            return
        parameters, found = validate(plugin.get("parameters") or {}, known.parameters)
        for below, message in found:
            self._find((*path, "parameters", *below), message)
        if kind == _HANDLER and self._of_type(_HANDLER):
            self._find((*path, "type"), "there is a profile handler already")
        self._plugins[name] = {"type": kind, "parameters": parameters if not found else {}}
        self._roles[name] = known.role

    def _check_references(self, data: dict[str, Any]) -> None:
        for path, name in _references(data, ()):
            kinds = _kinds_at(path)
            if name in self._plugins:
                if kinds and self._plugins[name]["type"] not in kinds:
                    self._find(path, f'"{name}" is not one of {", ".join(sorted(kinds))}')
            elif name not in kinds:  # those that the Inference Extension adds by itself need not be declared
                self._find(path, f'there is no plugin named "{name}"')

    def _profile(self, data: dict[str, Any]) -> Profile:
        profiles = data.get("schedulingProfiles", ())
        if len(profiles) > 1:
            self._find(("schedulingProfiles", 1), "more than one profile is not implemented")
        if profiles:
            name, refs = profiles[0]["name"], profiles[0].get("plugins", ())
        else:
            name, refs = "default", [{"pluginRef": name} for name, role in self._roles.items() if role in _SCHEDULING]
        filters, scorers, pickers = [], [], []
        for index, ref in enumerate(refs):
            path: FieldPath = ("schedulingProfiles", 0, "plugins", index)
            plugin_name = ref["pluginRef"]
            role = self._roles.get(plugin_name)
            if role is None:
                continue
            plugin = self._plugins[plugin_name]
            if "weight" in ref and role is not Role.SCORER:
                self._find((*path, "weight"), "only a scorer has a weight")
            match role:
                case Role.FILTER:
                    filters.append(
                        NamedFilter(name=plugin_name, filter=make_filter(plugin["type"], plugin["parameters"]))
                    )
                case Role.SCORER:
                    scorer = make_scorer(plugin["type"], plugin["parameters"])
                    scorers.append(
                        WeightedScorer(name=plugin_name, scorer=scorer, weight=float(ref.get("weight", 1.0)))
                    )
                case Role.PICKER:
                    pickers.append(make_picker(plugin["type"]))
                case _:
                    self._find((*path, "pluginRef"), f'"{plugin_name}" is neither a filter nor a scorer nor a picker')
        if len(pickers) > 1:
            self._find(("schedulingProfiles", 0, "plugins"), "a profile has one picker")
        if not pickers:  # one that is declared picks for a profile that does not say
            declared = (name for name, role in self._roles.items() if role is Role.PICKER)
            pickers = [make_picker(self._plugins[name]["type"]) for name in declared]
        chosen = {"picker": pickers[0]} if pickers else {}
        return Profile(name=name, filters=tuple(filters), scorers=tuple(scorers) or DEFAULT_SCORERS, **chosen)

    def _of_type(self, kind: str) -> list[dict[str, Any]]:
        return [plugin["parameters"] for plugin in self._plugins.values() if plugin["type"] == kind]

    def _detector(self, data: dict[str, Any]) -> dict[str, Any]:
        """The parameters of the saturation detector that is referred to, else of one that is declared."""
        older, newer = data.get("saturationDetector", {}), data.get("flowControl", {}).get("saturationDetector", {})
        name = newer.get("pluginRef") or older.get("pluginRef")
        if name is None:
            name = next((name for name, role in self._roles.items() if role is Role.DETECTOR), "")
        parameters: dict[str, Any] = self._plugins[name]["parameters"] if name in self._plugins else {}
        return parameters

    def _find(self, path: FieldPath, message: str) -> None:
        self.findings.append((path, message))


def _kinds_at(path: FieldPath) -> frozenset[str]:
    """The plugin types that may be referred to here; none for a profile, which has a check of its own."""
    match path[0]:
        case "parser" | "requestHandler":
            return _PARSERS
        case "saturationDetector" | "flowControl":
            return _DETECTORS
        case "data" | "dataLayer":
            return frozenset({"core-metrics-extractor" if "extractors" in path else "metrics-data-source"})
        case _:
            return frozenset()


def _references(data: Any, path: FieldPath) -> Iterator[tuple[FieldPath, str]]:
    """Every pluginRef, wherever it stands, but in a plugin's own parameters."""
    if isinstance(data, dict):
        for key, value in data.items():
            if key == "pluginRef":
                yield (*path, key), value
            elif key != "plugins" or path:
                yield from _references(value, (*path, key))
    elif isinstance(data, list):
        for index, item in enumerate(data):
            yield from _references(item, (*path, index))
